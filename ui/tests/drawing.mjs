// The hands that draw a workflow with the mouse, and what they look for.

import { button, dialog, go, page, rows, watch } from "./walk.mjs";

export const form = () => page.getByRole("complementary", { name: "Form" });
export const field = (name) => form().getByLabel(name, { exact: true });
export const node = (id) => page.locator(`.react-flow__node[data-id="${id}"]`);
export const outline = (id) => page.locator(`[data-node="${id}"]`);
export const pane = () => page.locator(".react-flow__pane");
export const valid = () => page.getByText("The plane finds nothing wrong.").waitFor();

/** The first stream's account as the page shows it: produced, delivered, buffered, dropped, dead. */
export async function account() {
  const [stream = {}] = await rows("Streams");
  const { Produced, Delivered, Buffered, Dropped, Dead } = stream;
  return [Produced, Delivered, Buffered, Dropped, Dead].map((cell = "") =>
    Number(cell.split("\n")[0].replaceAll(",", "")),
  );
}

async function centre(locator) {
  const { x, y, width, height } = await locator.boundingBox();
  return [x + width / 2, y + height / 2];
}

export async function connect(from, to) {
  await page.mouse.move(...(await centre(node(from).locator(".source"))));
  await page.mouse.down();
  await page.mouse.move(...(await centre(node(to).locator(".target"))), { steps: 8 });
  await page.mouse.up();
  await outline(to).getByText(`from ${from}`).waitFor();
}

export async function drag(role, name, x, y) {
  const list = page.getByRole("list", { name: `${role} to add` });
  const item = list.getByRole("button", { name: new RegExp(`^${name} `) });
  await item.scrollIntoViewIfNeeded();
  await item.dragTo(pane(), { targetPosition: { x, y } });
}

/** A new workflow with nothing in it. */
export async function empty() {
  await go("/workflows/new");
  await node("host").waitFor();
  await pane().click({ position: { x: 20, y: 20 } });
  await page.keyboard.press("Control+a");
  await page.keyboard.press("Delete");
  await page.getByText("Add a source to begin with.").waitFor();
}

/** Says where PostgreSQL is, and which of its tables; the destination is selected. */
export async function towardsPostgres(port, table) {
  await page.getByRole("button", { name: /more settings$/ }).click();
  await field("host").fill("127.0.0.1");
  await field("port").fill(port);
  await field("user").fill("postgres");
  await field("database").fill("postgres");
  await field("password").selectOption("not set");
  await form().getByRole("group", { name: "tls" }).getByLabel("mode", { exact: true }).selectOption("disable");
  await field("table").fill(table);
}

export async function deploy(name) {
  await valid();
  await page.keyboard.press("Control+s");
  await dialog().getByRole("button", { name: "Deploy", exact: true }).click();
  await page.waitForURL(`**/workflows/${name}`);
}

/** That there is no such workflow yet is no news. */
export const deployNew = (name) => watch.forgive(new RegExp(`404.*workflows/${name}`), () => deploy(name));

/** Puts what was drawn in order, and gives it its name. */
export async function arranged(name) {
  await button("Arrange").click();
  await pane().click({ position: { x: 20, y: 20 } });
  await field("Name").fill(name);
  await valid();
}
