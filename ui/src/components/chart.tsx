// A line over time. uPlot draws on a canvas; what it shows is also said in words for whoever cannot see it. Colours come
// from the tokens, and follow the theme.

import { useEffect, useRef } from "react";
import uPlot from "uplot";
import "uplot/dist/uPlot.min.css";
import { ticks } from "@/lib/format";
import { useTheme } from "@/shell/theme";

export type Point = readonly [unixS: number, value: number | null];

interface ChartProps {
  title: string;
  points: readonly Point[];
  format: (value: number) => string;
  /** The axis reaches so far at least: the difference between nothing and hardly anything is no picture. */
  leastTop?: number;
}

const HEIGHT_PX = 120;

function options(
  width: number,
  style: CSSStyleDeclaration,
  format: (value: number) => string,
  leastTop: number,
): uPlot.Options {
  // Tokens are light-dark(), which only a property that takes a colour resolves: the box carries three of them.
  const [text, line, accent] = [style.color, style.borderTopColor, style.caretColor];
  const axis = {
    stroke: text,
    font: `11px ${style.fontFamily}`,
    grid: { stroke: line, width: 1 },
    ticks: { show: false },
  };
  return {
    width,
    height: HEIGHT_PX,
    legend: { show: false },
    cursor: { show: false },
    // Room for the last time below, whose middle is at the edge.
    padding: [8, 28, 0, 0],
    scales: { y: { range: (_, low, high) => [Math.min(0, low), Math.max(high * 1.15, leastTop)] } },
    axes: [
      { ...axis, size: 24, space: 72, values: (_, splits) => ticks(splits.map((unixS) => unixS * 1_000)) },
      { ...axis, size: 64, space: 36, values: (_, splits) => splits.map(format) },
    ],
    series: [{}, { stroke: accent, width: 1.5, points: { show: false } }],
  };
}

export function Chart({ title, points, format, leastTop = 1 }: ChartProps) {
  const box = useRef<HTMLDivElement>(null);
  const plot = useRef<uPlot | null>(null);
  const theme = useTheme((state) => state.theme);
  const data = useRef<uPlot.AlignedData>([[], []]);
  const known = points.map(([, value]) => value).filter((value) => value !== null);
  // One point is no line, and its axis would span years.
  const isLine = known.length > 1;
  data.current = [points.map(([at]) => at), points.map(([, value]) => value)];
  // biome-ignore lint/correctness/useExhaustiveDependencies: a change of theme changes the colours that are read here
  useEffect(() => {
    const element = box.current;
    if (!element) return;
    const draw = () => {
      plot.current?.destroy();
      plot.current = new uPlot(
        options(element.clientWidth, getComputedStyle(element), format, leastTop),
        data.current,
        element,
      );
    };
    draw();
    const size = new ResizeObserver(() => plot.current?.setSize({ width: element.clientWidth, height: HEIGHT_PX }));
    size.observe(element);
    const scheme = matchMedia("(prefers-color-scheme: dark)");
    scheme.addEventListener("change", draw);
    return () => {
      size.disconnect();
      scheme.removeEventListener("change", draw);
      plot.current?.destroy();
      plot.current = null;
    };
  }, [theme, format, leastTop, isLine]);
  // biome-ignore lint/correctness/useExhaustiveDependencies: what is drawn are the points
  useEffect(() => {
    plot.current?.setData(data.current);
  }, [points]);
  const last = known.at(-1);
  const summary =
    last === undefined
      ? "nothing yet"
      : `now ${format(last)}, least ${format(Math.min(...known))}, most ${format(Math.max(...known))}`;
  return (
    <figure className="min-w-0 flex-1 basis-72">
      <figcaption className="flex items-baseline justify-between gap-2 text-sm">
        <span className="text-muted">{title}</span>
        <span className="tabular font-medium">{last === undefined ? "–" : format(last)}</span>
      </figcaption>
      {isLine ? (
        <div
          ref={box}
          role="img"
          aria-label={`${title}: ${summary}`}
          className="h-[120px] border-line text-muted caret-accent"
        />
      ) : (
        <p className="flex h-[120px] items-center justify-center text-sm text-muted">A line needs two reports.</p>
      )}
    </figure>
  );
}
