// Settings of this browser and of oneself, and the plane in short.

import { useInfo } from "@/api/queries";
import { Data } from "@/components/data";
import { Facts } from "@/components/facts";
import { Page, Panel, Section } from "@/components/page";
import { Tabs } from "@/components/tabs";
import { count, exact, number } from "@/lib/format";
import { chooseTheme, type Theme, useTheme } from "@/shell/theme";
import { FirstSteps } from "./first-steps";
import { OwnPassword } from "./password";
import { SETTINGS_TABS } from "./tabs";

const THEMES: readonly (readonly [Theme, string])[] = [
  ["system", "As the system has it"],
  ["light", "Light"],
  ["dark", "Dark"],
];

export default function Settings() {
  const info = useInfo();
  return (
    <Page title="Settings" isWide={false}>
      <Tabs label="Views of the settings" tabs={SETTINGS_TABS} />
      <FirstSteps />
      <Section title="Appearance">
        <Panel className="px-4 py-3">
          <Appearance />
        </Panel>
      </Section>
      <OwnPassword />
      <Section title="Plane">
        <Panel className="px-4 py-3">
          <Data query={info}>
            {(plane) => (
              <Facts
                facts={[
                  [
                    "Fleet",
                    <code key="fleet" className="font-mono text-xs">
                      {plane.fleet}
                    </code>,
                  ],
                  [
                    "Plane’s id",
                    <code key="plane" className="font-mono text-xs">
                      {plane.plane}
                    </code>,
                  ],
                  ["Version", plane.version],
                  ["Roster", `version ${number(plane.roster_version)}`],
                  ["Members", `${count(plane.daemons, "daemon")}, ${count(plane.operators, "operator")}`],
                  ["Page at", plane.http],
                  ["Times are shown in", exact(Date.now()).split(" ").at(-1)],
                ]}
              />
            )}
          </Data>
        </Panel>
      </Section>
    </Page>
  );
}

function Appearance() {
  const chosen = useTheme((state) => state.theme);
  return (
    <fieldset className="flex flex-wrap gap-x-6 gap-y-2">
      <legend className="sr-only">Colour theme</legend>
      {THEMES.map(([theme, text]) => (
        <label key={theme} className="inline-flex min-h-6 items-center gap-2 text-sm">
          <input
            type="radio"
            name="theme"
            className="size-4 accent-accent"
            checked={chosen === theme}
            onChange={() => chooseTheme(theme)}
          />
          {text}
        </label>
      ))}
    </fieldset>
  );
}
