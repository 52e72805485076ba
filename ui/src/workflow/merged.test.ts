import { expect, it } from "vitest";
import { readGraph } from "./graph";
import { merged } from "./merged";

it("what is gone is in the picture, with its edges", () => {
  const [before, after] = [
    '[sources.a]\n[transforms.b]\nfrom = "a"\n[destinations.c]\nfrom = "b"',
    '[sources.a]\ntype = "x"\n[destinations.c]\nfrom = "a"\n[destinations.d]\nfrom = "a"',
  ].map((text) => readGraph(text).graph);
  if (!before || !after) throw new Error("both can be read");
  const { graph, marks } = merged(before, after);
  expect([...marks].sort()).toEqual([
    ["a", "changed"],
    ["b", "removed"],
    ["c", "changed"],
    ["d", "added"],
  ]);
  expect(graph.edges.map(({ id }) => id).sort()).toEqual(["a->b", "a->c", "a->d", "b->c"]);
});
