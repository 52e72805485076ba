import { expect, it } from "vitest";
import { settingsOf } from "./schema";

const SCHEMA = JSON.stringify({
  type: "object",
  required: ["topics"],
  properties: {
    qos: { type: "integer", default: 1, description: "0 or 1." },
    topics: { type: "array", items: { type: "string" } },
    client_id: { type: ["string", "null"] },
    format: { description: "What a payload is.", $ref: "#/$defs/Format" },
    types: { type: "object", additionalProperties: { type: "string" }, default: {} },
    tls: { anyOf: [{ $ref: "#/$defs/Tls" }, { type: "null" }] },
    retry: { $ref: "#/$defs/Retry" },
    loop: { $ref: "#/$defs/Loop" },
  },
  $defs: {
    Format: { description: "Of a payload.", oneOf: [{ const: "json", description: "JSON" }, { const: "raw" }] },
    Tls: { type: "object", properties: { ca: { type: "string" } } },
    Retry: { type: "object", properties: { max: { type: "integer", default: 3 } }, required: ["max"] },
    Loop: { type: "array", items: { $ref: "#/$defs/Loop" } },
  },
});

it("settings as people read them, required ones first", () => {
  const rows = settingsOf(SCHEMA).map((each) => [each.name, each.type, each.isRequired, each.default]);
  expect(rows).toEqual([
    ["topics", "list of text", true, ""],
    ["retry.max", "number", true, "3"],
    ["qos", "number", false, "1"],
    ["client_id", "text", false, ""],
    ["format", '"json" | "raw"', false, ""],
    ["types", "table of text", false, ""],
    ["tls", "{ ca }", false, ""],
    ["retry", "table", false, ""],
    ["loop", "list of list of list of list of …", false, ""],
  ]);
  expect(settingsOf(SCHEMA).find(({ name }) => name === "format")?.description).toBe("What a payload is.");
});

it("nonsense has no settings", () => {
  expect([settingsOf("nonsense"), settingsOf("{}")]).toEqual([[], []]);
});
