import { fileURLToPath } from "node:url";
import tailwindcss from "@tailwindcss/vite";
import react from "@vitejs/plugin-react";
import { defineConfig } from "vitest/config";

const here = (path: string) => fileURLToPath(new URL(path, import.meta.url));
// The plane that the development server asks; it sees its own name as host and origin.
const plane = process.env.MYCELIAL_PLANE ?? "http://127.0.0.1:7777";
const toPlane = {
  target: plane,
  changeOrigin: true,
  headers: { origin: plane },
};

export default defineConfig({
  plugins: [react(), tailwindcss()],
  resolve: {
    alias: {
      "@": here("./src"),
      // Radix locks scrolling through this; the original writes a <style> element, which the page's policy forbids.
      "react-style-singleton": here("./src/lib/style-singleton.ts"),
    },
  },
  build: {
    target: "es2023",
    // Sources are in the repository; a map would double what the plane carries.
    sourcemap: false,
    reportCompressedSize: false,
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    manifest: true,
    // scripts/clean.mjs does that, and leaves the README.
    emptyOutDir: false,
  },
  server: {
    proxy: { "/api": toPlane },
  },
  test: {
    environment: "node",
    include: ["src/**/*.test.{ts,tsx}"],
  },
});
