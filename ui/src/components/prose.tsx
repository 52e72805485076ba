// The little marking that descriptions of components have: paragraphs, lists, tables, `code` and **words that matter**.

// A text's pieces never move: their place is their name.
const placed = <T,>(pieces: readonly T[]) => pieces.map((piece, at) => [`${at}`, piece] as const);

function Inline({ text }: { text: string }) {
  return placed(text.split(/(`[^`]+`|\*\*[^*]+\*\*)/)).map(([key, piece]) => {
    if (piece.startsWith("`")) {
      return (
        <code key={key} className="rounded-(--radius-sm) bg-sunken px-1 font-mono text-xs">
          {piece.slice(1, -1)}
        </code>
      );
    }
    if (piece.startsWith("**")) return <strong key={key}>{piece.slice(2, -2).replaceAll("`", "")}</strong>;
    return piece;
  });
}

/** A row of a table: what stands between the bars. A bar after a backslash belongs to the text. */
const cells = (line: string) =>
  line
    .trim()
    .replace(/^\||\|$/g, "")
    .split(/(?<!\\)\|/)
    .map((cell) => cell.trim().replaceAll("\\|", "|"));

function MarkedTable({ lines }: { lines: readonly string[] }) {
  const [head = "", , ...body] = lines;
  return (
    <div className="overflow-x-auto">
      <table className="border-collapse text-sm">
        <thead>
          <tr>
            {placed(cells(head)).map(([key, cell]) => (
              <th
                key={key}
                scope="col"
                className="border-b border-line py-1 pr-4 text-left text-xs font-medium text-muted"
              >
                <Inline text={cell} />
              </th>
            ))}
          </tr>
        </thead>
        <tbody>
          {placed(body).map(([row, line]) => (
            <tr key={row}>
              {placed(cells(line)).map(([key, cell]) => (
                <td key={key} className="border-b border-line py-1 pr-4 align-top">
                  <Inline text={cell} />
                </td>
              ))}
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}

function Block({ text }: { text: string }) {
  const lines = text.split("\n");
  if (lines.length > 2 && lines.every((line) => line.trimStart().startsWith("|"))) return <MarkedTable lines={lines} />;
  if (/^[-*] /.test(text)) {
    return (
      <ul className="list-disc pl-5">
        {placed(text.split(/\n?^[-*] /m).filter(Boolean)).map(([key, item]) => (
          <li key={key}>
            <Inline text={item} />
          </li>
        ))}
      </ul>
    );
  }
  return (
    <p>
      <Inline text={text} />
    </p>
  );
}

export function Prose({ text }: { text: string }) {
  const blocks = text.split(/\n\s*\n/).filter((block) => block.trim() !== "");
  return (
    <div className="flex max-w-prose min-w-0 flex-col gap-2">
      {placed(blocks).map(([key, block]) => (
        <Block key={key} text={block.trim()} />
      ))}
    </div>
  );
}
