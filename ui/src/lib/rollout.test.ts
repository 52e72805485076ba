import { expect, it } from "vitest";
import type { RolloutPhase } from "@/api/types";
import {
  cliOf,
  course,
  FIRST,
  inWords,
  mistakes,
  parseAmount,
  parseSpan,
  parseWaves,
  policyOf,
  showSpan,
  USUAL,
  waveStates,
} from "./rollout";

const waves = Array.from({ length: 3 }, () => ({ daemons: 4, taken: 0, failed: 0 }));
const words = (phase: RolloutPhase, wave: number) => waveStates({ phase, wave, waves }).map(([, word]) => word);

it.each<[RolloutPhase, number, string[]]>([
  ["ready", 1, ["about to deploy", "waits", "waits"]],
  ["soaking", 2, ["does well", "soaking", "waits"]],
  ["paused", 2, ["does well", "paused", "waits"]],
  ["rolling_back", 2, ["rolling back", "rolling back", "never begun"]],
  ["rolled_back", 1, ["rolled back", "never begun", "never begun"]],
  ["aborted", 2, ["does well", "aborted", "never begun"]],
  ["done", 3, ["done", "done", "done"]],
])("%s at wave %d", (phase, wave, expected) => expect(words(phase, wave)).toEqual(expected));

it.each([
  ["3", { count: 3 }],
  [" 10% ", { percent: 10 }],
  ["101%", null],
  ["-1", null],
  ["ten", null],
  ["", null],
])("amount %s", (text, expected) => expect(parseAmount(text)).toEqual(expected));

it.each([
  ["30s", 30],
  ["10m", 600],
  ["2h", 7_200],
  ["1d", 86_400],
  ["30", null],
  ["soon", null],
])("span %s", (text, expected) => expect(parseSpan(text)).toBe(expected));

it("a span is shown as it is read", () => {
  for (const seconds of [0, 1, 30, 90, 600, 7_200, 86_400, 90_000]) expect(parseSpan(showSpan(seconds))).toBe(seconds);
});

it("the form begins with what is usual", () => {
  expect(policyOf(FIRST)).toEqual(USUAL);
  expect(mistakes(FIRST)).toEqual({ waves: "", soak: "", take: "", failures: "", lag: "", wait: "", throughput: "" });
  expect(cliOf("shop.toml", FIRST, 4)).toBe("mycelial rollout start shop.toml --expect 4");
});

it("what is typed is what is sent, and what is wrong is said", () => {
  const typed = { ...FIRST, waves: "5 100%", soak: "10m", failures: "2%", isPausing: true };
  expect(policyOf(typed)).toMatchObject({ soak_s: 600, failures_max: { percent: 2 }, on_failure: "pause" });
  expect(cliOf("shop.toml", typed, 0)).toBe(
    "mycelial rollout start shop.toml --expect 0 --waves 5,100% --soak 10m --max-failures 2% --pause-on-failure",
  );
  const gates = { ...FIRST, lag: "1 GiB", wait: "5m", throughput: "0%" };
  expect(policyOf(FIRST)).toEqual(USUAL);
  expect(policyOf(gates)).toMatchObject({ lag_bytes_max: 1_073_741_824, lag_s_max: 300, throughput_percent_min: 0 });
  expect(cliOf("shop.toml", gates, 2)).toBe(
    "mycelial rollout start shop.toml --expect 2 --max-lag 1GiB --max-wait 5m --min-throughput 0%",
  );
  for (const wrong of [{ lag: "much" }, { lag: "64" }, { wait: "5" }, { throughput: "20" }, { throughput: "101%" }]) {
    expect(policyOf({ ...FIRST, ...wrong })).toBeNull();
    expect(cliOf("shop.toml", { ...FIRST, ...wrong }, 2)).toBeNull();
    expect(Object.values(mistakes({ ...FIRST, ...wrong })).filter(Boolean)).toHaveLength(1);
  }
  const wrong = { ...typed, waves: "all", take: "x" };
  expect(policyOf(wrong)).toBeNull();
  expect(mistakes(wrong)).toMatchObject({
    waves: expect.stringContaining("10%"),
    take: expect.stringContaining("30s"),
  });
  expect(parseWaves("1, 2, 3")).toHaveLength(3);
});

it.each([
  // As usual, in other words.
  [{ waves: "1 10% 50%,100%", soak: " 30 s", take: "120s", failures: "0 ", lag: "65536 kib", wait: "900s" }, ""],
  [{ soak: "90 s", take: "120 m", wait: "60m" }, " --soak 90s --take 2h --max-wait 1h"],
  [{ lag: "2048kib", throughput: "020%", failures: "05%" }, " --max-failures 5% --max-lag 2MiB"],
  [{ lag: "0 b" }, " --max-lag 0B"],
  [{ soak: "" }, null],
  [{ take: "soon" }, null],
  [{ wait: " " }, null],
])("%j is%s on the command line", (change, said) => {
  const command = said === null ? null : `mycelial rollout start shop.toml --expect 1${said}`;
  expect(cliOf("shop.toml", { ...FIRST, ...change }, 1)).toBe(command);
});

it("a policy in words", () => {
  expect(inWords(USUAL)).toBe(
    "1, 10%, 50%, 100% of the daemons, each wave for 30 s; when more than 0 fail, all go back to what they had",
  );
});

it.each([
  ["soaking", 1, "gets revision 2 instead of 1."],
  ["paused", 0, "gets its first revision, 2."],
  ["done", 1, "got revision 2 instead of 1."],
  ["rolled_back", 1, "was to get revision 2 instead of 1."],
  ["aborted", 0, "was to get its first revision, 2."],
] as const)("a rollout that is %s, after %d", (phase, before, text) =>
  expect(course({ phase, before, revision: 2 })).toBe(text),
);
