// The pages of the settings.

export const SETTINGS_TABS = [
  ["General", "/settings"],
  ["Users", "/settings/users"],
  ["API tokens", "/settings/tokens"],
  ["Broker", "/settings/broker"],
  ["Backup", "/settings/backup"],
] as const;
