/**
 * What the client's types promise. tsc is the judge: these tests fail to compile when the type of a
 * command or an event is no longer what its schema says. What runs holds the schemas to the same.
 */

import * as v from "valibot";
import { describe, expect, expectTypeOf, it } from "vitest";
import { browserDrivers } from "../../src/drivers/index.ts";
import { fileDriver } from "../../src/drivers/protocol/file.ts";
import type {
  ArgumentsOf,
  BlockdevOptions,
  Client,
  CommandName,
  CreateOptions,
  EventName,
  QmpEvent,
  ReturnOf,
} from "../../src/engine/client.ts";
import { COMMANDS } from "../../src/qmp/commands/index.ts";
import { EVENTS } from "../../src/qmp/events.ts";

type Driver = BlockdevOptions["driver"];
type Options<D extends Driver> = Extract<BlockdevOptions, { driver: D }>;

describe("commands", () => {
  it("have the names of the table, and nothing else is one", () => {
    expectTypeOf<"query-nothing">().not.toExtend<CommandName>();
    // A name that is in the types and not in the table, or the other way round, is an error here.
    const names = [...COMMANDS.keys()] as CommandName[];
    expect(names).toContain("block-stream" satisfies CommandName);
  });

  it("take what their schemas take", () => {
    expectTypeOf<ArgumentsOf<"job-pause">>().toEqualTypeOf<{ id: string }>();
    expectTypeOf<ArgumentsOf<"block-job-cancel">>().toEqualTypeOf<{
      device: string;
      force?: boolean | undefined;
    }>();
    type Stream = ArgumentsOf<"block-stream">;
    expectTypeOf<Stream["device"]>().toEqualTypeOf<string>();
    expectTypeOf<Stream["speed"]>().toEqualTypeOf<number | undefined>();
    expectTypeOf<Stream>().not.toHaveProperty("target");
    expectTypeOf<ArgumentsOf<"blockdev-mirror">["sync"]>().toExtend<string>();
    expectTypeOf<"sideways">().not.toExtend<ArgumentsOf<"blockdev-mirror">["sync"]>();
  });

  it("answer what their schemas say", () => {
    expectTypeOf<ReturnOf<"query-version">["qemu"]>().toEqualTypeOf<{
      major: number;
      minor: number;
      micro: number;
    }>();
    type Job = ReturnOf<"query-jobs">[number];
    expectTypeOf<Job["current-progress"]>().toEqualTypeOf<number>();
    expectTypeOf<Job["error"]>().toEqualTypeOf<string | undefined>();
    expectTypeOf<"paused">().toExtend<Job["status"]>();
    expectTypeOf<"asleep">().not.toExtend<Job["status"]>();
    // biome-ignore lint/complexity/noBannedTypes: an object without members is what comes.
    expectTypeOf<ReturnOf<"job-pause">>().toEqualTypeOf<{}>();
  });
});

describe("what opens a node", () => {
  it("has a case for every driver, and knows no other", () => {
    const drivers = [...browserDrivers(new Map()), fileDriver()];
    const listed: Record<Driver, true> = {
      blkdebug: true,
      blklogwrites: true,
      blob: true,
      "copy-before-write": true,
      "copy-on-read": true,
      file: true,
      http: true,
      indexeddb: true,
      memory: true,
      "null-aio": true,
      "null-co": true,
      opfs: true,
      qcow2: true,
      raw: true,
      "snapshot-access": true,
      throttle: true,
    };
    expect(drivers.map(({ name }) => name).sort()).toEqual(Object.keys(listed).sort());
  });

  it("takes the members of its driver, and those of no other", () => {
    const accept = (_options: BlockdevOptions) => {};
    accept({ driver: "qcow2", "node-name": "n", file: "f", backing: null, "cache-size": 65536 });
    accept({ driver: "qcow2", file: { driver: "raw", file: { driver: "opfs", filename: "x" } } });
    accept({ driver: "blkdebug", image: "n", "inject-error": [{ event: "read_aio", once: true }] });
    accept({ driver: "http", url: "http://host/" });
    // @ts-expect-error no such driver
    accept({ driver: "vmdk", file: "f" });
    // @ts-expect-error no such member
    accept({ driver: "qcow2", file: "f", filename: "x" });
    // @ts-expect-error no such member, one node below
    accept({ driver: "qcow2", file: { driver: "opfs", filename: "x", url: "y" } });
    // @ts-expect-error a required member is missing
    accept({ driver: "throttle", file: "f" });
    // @ts-expect-error a required node is missing
    accept({ driver: "qcow2" });
    // @ts-expect-error blkdebug's child has another name
    accept({ driver: "blkdebug", file: "n" });
    // @ts-expect-error raw has no backing file
    accept({ driver: "raw", file: "f", backing: null });
    // @ts-expect-error only a backing file can be none
    accept({ driver: "raw", file: null });
    // @ts-expect-error discard is one of two words
    accept({ driver: "memory", size: 512, discard: "sometimes" });
    expectTypeOf<Options<"memory">["size"]>().toEqualTypeOf<number | undefined>();
    expectTypeOf<Options<"qcow2">["data-file"]>().toEqualTypeOf<
      string | BlockdevOptions | undefined
    >();
  });
});

it("what makes an image has a case for each driver that can", () => {
  expectTypeOf<CreateOptions["driver"]>().toEqualTypeOf<
    "file" | "indexeddb" | "memory" | "opfs" | "qcow2" | "raw"
  >();
  const accept = (_options: CreateOptions) => {};
  accept({ driver: "qcow2", file: "f", size: 512, version: "v3" });
  // @ts-expect-error formats make images in a node
  accept({ driver: "qcow2", size: 512 });
  // @ts-expect-error stores do not
  accept({ driver: "memory", file: "f", name: "n", size: 512 });
  const makers = [...browserDrivers(new Map()), fileDriver()].filter(({ create }) => create);
  expect(makers).toHaveLength(6);
  type Amend = ArgumentsOf<"x-blockdev-amend">["options"];
  expectTypeOf<Amend["driver"]>().toEqualTypeOf<"qcow2">();
});

describe("events", () => {
  it("have the names and data of their schemas", () => {
    expectTypeOf<QmpEvent<"BLOCK_EXPORT_DELETED">["data"]>().toEqualTypeOf<
      Readonly<{ id: string }>
    >();
    expectTypeOf<QmpEvent<"BLOCK_JOB_ERROR">["data"]["action"]>().toEqualTypeOf<
      "ignore" | "report" | "stop"
    >();
    type Status = QmpEvent<"JOB_STATUS_CHANGE">["data"]["status"];
    expectTypeOf<Status>().toEqualTypeOf<ReturnOf<"query-jobs">[number]["status"]>();
    const data: QmpEvent<"JOB_STATUS_CHANGE">["data"] = { id: "j", status: "ready" };
    expect(v.parse(EVENTS.JOB_STATUS_CHANGE, data)).toEqual(data);
  });

  it("are narrowed by the names that are asked for", () => {
    type Of<Names extends EventName> = Awaited<
      ReturnType<ReturnType<typeof ask<Names>>["next"]>
    >["value"];
    const ask = <Names extends EventName>(client: Client, ...names: Names[]) =>
      client.events(...names);
    expectTypeOf<Of<"BLOCK_JOB_READY">>().toEqualTypeOf<QmpEvent<"BLOCK_JOB_READY"> | undefined>();
    // Never called: tsc is the test.
    const _types = async (client: Client) => {
      for await (const event of client.events("JOB_STATUS_CHANGE", "BLOCK_JOB_ERROR")) {
        expectTypeOf(event.event).toEqualTypeOf<"JOB_STATUS_CHANGE" | "BLOCK_JOB_ERROR">();
        if (event.event === "BLOCK_JOB_ERROR") expectTypeOf(event.data.device).toBeString();
        else expectTypeOf(event.data.id).toBeString();
      }
      // @ts-expect-error no such event
      client.events("JOB_STATUS_CHANGED");
      for await (const event of client.events()) expectTypeOf(event).toEqualTypeOf<QmpEvent>();
    };
    expect(_types).toBeTypeOf("function");
  });
});
