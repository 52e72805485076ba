// What the keyboard can do.

import { Dialog } from "@/components/dialog";
import { NAVIGATION } from "./routes";

const EVERYWHERE: readonly (readonly [keys: string[], what: string])[] = [
  [["Ctrl", "K"], "Go anywhere, do anything"],
  [["/"], "Search this page"],
  [["?"], "These keys"],
  [["Esc"], "Close"],
];

const Keys = ({ keys }: { keys: readonly string[] }) => (
  <span className="flex gap-1">
    {keys.map((key) => (
      <kbd
        key={key}
        className="min-w-6 rounded-(--radius-sm) border border-line-strong px-1.5 text-center font-mono text-xs"
      >
        {key}
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

export default function Shortcuts({ onClose }: { onClose: () => void }) {
  return (
    <Dialog title="Keys" isOpen onClose={onClose}>
      <dl className="flex flex-col gap-1.5">
        {EVERYWHERE.map(([keys, what]) => (
          <Row key={what} keys={keys} what={what} />
        ))}
      </dl>
      <h3 className="text-sm font-semibold">One after the other</h3>
      <dl className="flex flex-col gap-1.5">
        {NAVIGATION.map(({ key, label }) => (
          <Row key={key} keys={["g", key]} what={label} />
        ))}
      </dl>
    </Dialog>
  );
}
