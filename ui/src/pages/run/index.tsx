// A workflow as it runs.

import { useParams } from "wouter";
import { Page } from "@/components/page";

export default function Run() {
  const { name = "" } = useParams();
  return <Page title={name}>{null}</Page>;
}
