// The fleet at a glance.

import { Page } from "@/components/page";

export default function Overview() {
  return <Page title="Overview">{null}</Page>;
}
