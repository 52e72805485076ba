// @vitest-environment jsdom
import { cleanup, render } from "@testing-library/react";
import { afterEach, expect, it } from "vitest";
import { Drift } from "./drift";

afterEach(cleanup);

it("what, where and when are said, and nothing where nothing is", () => {
  const what = "agreed: column 'speed' (i64) is new in 'readings': accepted";
  const drift = [{ daemon: "gateway", what, batches: 12, ago_ms: 200_000 }];
  render(<Drift drift={drift} toldUnixMs={Date.now()} />);
  expect(document.body.textContent).toContain(`${what}. On gateway, in 12 batches, last seen 3 min ago.`);
  cleanup();
  render(<Drift drift={[]} toldUnixMs={Date.now()} />);
  expect(document.body.textContent).toBe("");
});
