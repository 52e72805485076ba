// The little marking that descriptions of components have: paragraphs, `code` and **words that matter**.

function inline(text: string) {
  return text.split(/(`[^`]+`|\*\*[^*]+\*\*)/).map((piece, at) => {
    // A text's pieces never move: their place is their name.
    const key = `${at}`;
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

export function Prose({ text }: { text: string }) {
  const paragraphs = text.split(/\n\s*\n/).filter((paragraph) => paragraph.trim() !== "");
  return (
    <div className="flex max-w-prose flex-col gap-2">
      {paragraphs.map((paragraph) => (
        <p key={paragraph}>{inline(paragraph)}</p>
      ))}
    </div>
  );
}
