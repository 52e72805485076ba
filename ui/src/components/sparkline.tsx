// The last two minutes of a rate, small. The number beside it says the same.

const WIDTH = 72;
const HEIGHT = 20;

export function Sparkline({ values }: { values: readonly number[] }) {
  if (values.length < 2) return <svg width={WIDTH} height={HEIGHT} aria-hidden="true" />;
  const most = Math.max(1, ...values);
  const step = WIDTH / (values.length - 1);
  const points = values.map(
    (value, at) => `${(at * step).toFixed(1)},${(HEIGHT - 1 - (value / most) * (HEIGHT - 2)).toFixed(1)}`,
  );
  return (
    <svg
      width={WIDTH}
      height={HEIGHT}
      viewBox={`0 0 ${WIDTH} ${HEIGHT}`}
      aria-hidden="true"
      className="shrink-0 text-accent"
    >
      <polyline points={points.join(" ")} fill="none" stroke="currentColor" strokeWidth="1.25" />
    </svg>
  );
}
