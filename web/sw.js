// @ts-check
/// <reference lib="webworker" />
/**
 * The service worker: keeps the page itself, so that a disk that is whole opens with no server.
 *
 * Each build of the page is one cache, filled whole before it is used, so that files of two builds
 * never meet. A new build waits until no tab uses the old one (that is why nothing calls
 * skipWaiting()): no page is taken away from under a running job.
 *
 * Only files of the build are answered. Everything else, template images and their Range requests
 * first of all, goes to the network as if this were not there.
 *
 * Not workbox: what is needed are these lines, and its build brings hundreds of packages.
 */

/** The files of the build and its hash; web/sw-plugin.ts puts them here. */
const FILES = /** @type {string[]} */ (["__FILES__"]);
const CACHE = "blocktab-page-__HASH__";

const worker = /** @type {ServiceWorkerGlobalScope} */ (/** @type {unknown} */ (globalThis));
const HOME = worker.registration.scope;
const URLS = new Set([HOME, ...FILES.map((file) => new URL(file, HOME).href)]);

worker.addEventListener("install", (event) => {
  event.waitUntil(
    caches
      .open(CACHE)
      .then((cache) => cache.addAll([...URLS].map((url) => new Request(url, { cache: "reload" })))),
  );
});

worker.addEventListener("activate", (event) => {
  event.waitUntil(
    caches.keys().then((names) => {
      const old = names.filter((name) => name.startsWith("blocktab-page-") && name !== CACHE);
      return Promise.all(old.map((name) => caches.delete(name)));
    }),
  );
});

worker.addEventListener("fetch", (event) => {
  const { request } = event;
  if (request.method !== "GET" || request.headers.has("Range")) return;
  const { origin, pathname } = new URL(request.url);
  const url = (origin + pathname).replace(/\/index\.html$/, "/");
  if (!URLS.has(url)) return;
  // Should the browser have cleared the cache, the network is asked.
  const kept = caches.open(CACHE).then((cache) => cache.match(url));
  event.respondWith(kept.then((response) => response ?? fetch(request)));
});
