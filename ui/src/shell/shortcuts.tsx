// What the keyboard can do.

import { Dialog } from "@/components/dialog";
import { MODIFIER } from "./keyboard";
import { useNavigation } from "./routes";

const EVERYWHERE: readonly (readonly [keys: string[], what: string])[] = [
  [["Ctrl", "K"], "Go anywhere, do anything"],
  [["/"], "Search this page"],
  [["?"], "These keys"],
  [["Esc"], "Close"],
];

const EDITOR: readonly (readonly [keys: string[], what: string])[] = [
  [["Ctrl", "S"], "Deploy"],
  [["Ctrl", "Z"], "Undo"],
  [["Ctrl", "Shift", "Z"], "Redo"],
  [["Ctrl", "A"], "Select all"],
  [["Ctrl", "C"], "Copy what is selected"],
  [["Ctrl", "X"], "Cut it"],
  [["Ctrl", "V"], "Paste"],
  [["Ctrl", "Space"], "Select one more in the outline"],
  [["Shift", "Arrow"], "Select on in the outline"],
  [["Delete"], "Delete what is selected"],
  [["Alt", "Arrow"], "Move a node of the outline"],
];

const Keys = ({ keys }: { keys: readonly string[] }) => (
  <span className="flex gap-1">
    {keys.map((key) => (
      <kbd
        key={key}
        className="min-w-6 rounded-(--radius-sm) border border-line-strong px-1.5 text-center font-mono text-xs"
      >
        {key === "Ctrl" ? MODIFIER : key}
      </kbd>
    ))}
  </span>
);

const Row = ({ keys, what }: { keys: readonly string[]; what: string }) => (
  <div className="flex items-center justify-between gap-4 text-sm">
    <dt>{what}</dt>
    <dd>
      <Keys keys={keys} />
    </dd>
  </div>
);

const List = ({ rows }: { rows: typeof EVERYWHERE }) => (
  <dl className="flex flex-col gap-1.5">
    {rows.map(([keys, what]) => (
      <Row key={what} keys={keys} what={what} />
    ))}
  </dl>
);

export default function Shortcuts({ onClose }: { onClose: () => void }) {
  return (
    <Dialog title="Keys" isOpen onClose={onClose}>
      <List rows={EVERYWHERE} />
      <h3 className="text-sm font-semibold">In the editor</h3>
      <List rows={EDITOR} />
      <h3 className="text-sm font-semibold">One after the other</h3>
      <dl className="flex flex-col gap-1.5">
        {useNavigation().map(({ key, label }) => (
          <Row key={key} keys={["g", key]} what={label} />
        ))}
      </dl>
    </Dialog>
  );
}
