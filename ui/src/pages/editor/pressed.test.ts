// @vitest-environment jsdom
import { expect, it } from "vitest";
import { meaningOf, whereIs } from "./pressed";

const pressed = (keys: string) => ({
  key: keys.at(-1) ?? "",
  ctrlKey: keys.includes("Ctrl"),
  metaKey: keys.includes("Cmd"),
  altKey: keys.includes("Alt"),
  shiftKey: keys.includes("Shift"),
});

it.each([
  ["Ctrl z", "undo", "undo", null],
  ["Cmd z", "undo", "undo", null],
  ["Ctrl Shift Z", "redo", "redo", null],
  ["Ctrl y", "redo", "redo", null],
  ["Ctrl a", "all", null, null],
  ["Ctrl s", "deploy", "deploy", "deploy"],
  ["z", null, null, null],
  ["Ctrl Alt z", null, null, null],
] as const)("%s", (keys, elsewhere, workflow, own) => {
  expect(meaningOf(pressed(keys), "elsewhere")).toBe(elsewhere);
  expect(meaningOf(pressed(keys), "workflow")).toBe(workflow);
  expect(meaningOf(pressed(keys), "own")).toBe(own);
});

it.each([
  ["<p></p>", "elsewhere"],
  ["<input>", "workflow"],
  ["<textarea></textarea>", "workflow"],
  ["<textarea data-own='true'></textarea>", "own"],
  ["<input type='search' value='csv'>", "own"],
  ["<input type='search'>", "workflow"],
] as const)("%s is %s", (html, where) => {
  document.body.innerHTML = html;
  expect(whereIs(document.body.firstElementChild)).toBe(where);
});
