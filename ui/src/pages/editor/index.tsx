// The workflow editor.

import { Page } from "@/components/page";

export default function Editor() {
  return <Page title="Editor">{null}</Page>;
}
