/** A button that asks for one file. */

interface FilePickerProps {
  readonly label: string;
  readonly testId: string;
  readonly disabled: boolean;
  readonly onPick: (file: File) => void;
}

export function FilePicker({ label, testId, disabled, onPick }: FilePickerProps) {
  return (
    <label class="file-picker" aria-disabled={disabled}>
      {label}
      <input
        type="file"
        class="visually-hidden"
        data-testid={testId}
        disabled={disabled}
        onChange={(event) => {
          const [file] = event.currentTarget.files ?? [];
          // The same file may be picked twice in a row.
          event.currentTarget.value = "";
          if (file !== undefined) onPick(file);
        }}
      />
    </label>
  );
}
