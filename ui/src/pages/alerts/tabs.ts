// The two pages about alerts.

export const TABS = [
  ["Alerts", "/alerts"],
  ["Rules", "/alerts/rules"],
] as const;
