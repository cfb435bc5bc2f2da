// What the tests in a browser share: a page of a real, headless Chromium.

import { createRequire } from "node:module";

// The packages lie in export/node_modules, where an import from this folder would not look.
const { chromium } = createRequire(new URL("../export/package.json", import.meta.url))(
  "playwright-core",
);

/**
 * Opens a page, and gives back what use(page) returns.
 *
 * The environment's CHROMIUM is the browser's path. `options` are those of Playwright's newPage:
 * viewport, hasTouch and so on. Throws where the page logged or raised an error.
 */
export async function withPage(url, use, options = {}) {
  const browser = await chromium.launch({
    executablePath: process.env.CHROMIUM,
    args: ["--no-sandbox"], // a container's root may not use the sandbox
  });
  try {
    const page = await browser.newPage(options);
    const errors = [];
    page.on("pageerror", (error) => errors.push(error.message));
    page.on("console", (message) => {
      if (message.type() === "error") {
        errors.push(`${message.text()} (${message.location().url})`);
      }
    });
    await page.goto(url);
    const result = await use(page);
    if (errors.length > 0) {
      throw new Error(`the page at ${url} had errors:\n${errors.join("\n")}`);
    }
    return result;
  } finally {
    await browser.close();
  }
}
