import type { UseQueryResult } from "@tanstack/react-query";
import { renderToStaticMarkup } from "react-dom/server";
import { expect, it } from "vitest";
import { Data } from "./data";

const shown = (query: object) =>
  renderToStaticMarkup(<Data query={query as UseQueryResult<string>}>{(data) => <p>{data}</p>}</Data>);
const error = new Error("the store does not answer");

it.each([
  ["nothing yet", { isError: false, errorUpdateCount: 0 }, ["Loading"], []],
  ["what came", { data: "9 rows", isError: false, errorUpdateCount: 0 }, ["9 rows"], ["What is shown is from"]],
  ["a failure", { isError: true, error, errorUpdateCount: 1 }, ["The store does not answer.", "Try again"], []],
  [
    "what came before a failure, marked as old",
    { data: "9 rows", isError: true, error, errorUpdateCount: 1, dataUpdatedAt: 0 },
    ["What is shown is from", "The store does not answer.", "9 rows"],
    ["Try again"],
  ],
] as const)("shows %s", (_, query, there, absent) => {
  const html = shown(query);
  for (const part of there) expect(html).toContain(part);
  for (const part of absent) expect(html).not.toContain(part);
});
