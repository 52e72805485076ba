// An address that is none.

import { LinkButton } from "@/components/button";
import { Empty, Page } from "@/components/page";

export default function Missing() {
  return (
    <Page title="No such page">
      <Empty title="There is nothing at this address" action={<LinkButton href="/">To the overview</LinkButton>} />
    </Page>
  );
}
