import { parse } from "smol-toml";
import { expect, it } from "vitest";
import type { AlertView, RuleShown } from "@/api/types";
import { chooseAlerts, cliOf, hrefOf, inWords, NEW, nameOf, withRule } from "./words";

it.each([
  [{ ...NEW, name: "a" }, "a daemon is offline for 5m"],
  [
    { ...NEW, when: "disk_free" as const, over: 200, for_s: 0, select: "site=berlin", workflow: "shop" },
    "less than 200 MiB of disk are free, on site=berlin, of shop",
  ],
  [
    { ...NEW, when: "drift" as const, over: 3_600, for_s: 0, workflow: "shop" },
    "columns of a workflow were not what its contract says within the last 3600 s, of shop",
  ],
])("%j", (rule, expected) => expect(inWords(rule)).toBe(expected));

it.each([
  ["daemon:gw 1", "/daemons/gw%201", "daemon gw 1"],
  ["workflow:shop", "/workflows/shop", "workflow shop"],
  ["stream:shop/a->b", "/workflows/shop", "stream shop, a → b"],
])("%s", (subject, href, name) => expect([hrefOf(subject), nameOf(subject)]).toEqual([href, name]));

it("the command takes all rules, in a file that says the same", () => {
  const rules = [
    { ...NEW, name: "loud", select: 'site="a\\b"', notify: ["ops", "night"] },
    { ...NEW, name: "now", when: "lag" as const, over: 900, for_s: 0, enabled: false },
  ];
  const [command, ...lines] = cliOf(rules).split("\n");
  expect([command, lines.pop()]).toEqual(["mycelial alert apply --yes - <<'RULES'", "RULES"]);
  const { rule } = parse(lines.join("\n"));
  const [loud, { for_s: _, ...now }] = rules as [(typeof rules)[0], (typeof rules)[0]];
  const { for_s, ...first } = loud;
  expect(for_s).toBe(300);
  expect(rule).toEqual([{ ...first, for: "5m" }, now]);
});

const alert = (id: string, change: Partial<AlertView>): AlertView => ({
  id,
  rule: "disk-free",
  subject: "daemon:gw",
  severity: "warning",
  state: "firing",
  since_unix_ms: 0,
  summary: "",
  silenced_until_unix_ms: 0,
  silence_reason: "",
  ...change,
});

it("the worst comes first, and what is silenced or only pending last", () => {
  const all = [
    alert("pending", { state: "pending", severity: "critical" }),
    alert("silenced", { silenced_until_unix_ms: 9 }),
    alert("older", {}),
    alert("newer", { since_unix_ms: 5 }),
    alert("worst", { severity: "critical" }),
  ];
  expect(chooseAlerts(all, "").map(({ id }) => id)).toEqual(["worst", "newer", "older", "silenced", "pending"]);
  expect(chooseAlerts(all, "gw -warning").map(({ id }) => id)).toEqual(["worst", "pending"]);
  const only = (state: string, severity = "") => chooseAlerts(all, "", { state, severity }).map(({ id }) => id);
  expect(only("silenced")).toEqual(["silenced"]);
  expect(only("firing", "warning")).toEqual(["newer", "older"]);
  expect(only("", "critical")).toEqual(["worst", "pending"]);
});

it("a changed rule takes the place of its old self, and the plane's own are not sent back", () => {
  const own: RuleShown = { ...NEW, name: "own", comes_with_plane: false };
  const all: RuleShown[] = [own, { ...NEW, name: "daemon-offline", comes_with_plane: true }];
  const names = (rules: { name: string }[]) => rules.map(({ name }) => name);
  expect(withRule(all, "own", { ...NEW, name: "renamed" })).toEqual([{ ...NEW, name: "renamed" }]);
  expect(names(withRule(all, "daemon-offline", { ...NEW, name: "daemon-offline", enabled: false }))).toEqual([
    "own",
    "daemon-offline",
  ]);
  expect(withRule(all, "own", null)).toEqual([]);
  expect(withRule(all, "", { ...NEW, name: "second" })[0]).not.toHaveProperty("comes_with_plane");
});
