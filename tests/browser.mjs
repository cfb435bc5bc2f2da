// What the tests in a browser share: a page of a real, headless Chromium.

import { createRequire } from "node:module";

// The packages lie in export/node_modules, where an import from this folder would not look.
const { chromium } = createRequire(new URL("../export/package.json", import.meta.url))(
  "playwright-core",
);

let launched;

/** The browser of this process, whose path is the environment's CHROMIUM. */
const browser = () =>
  (launched ??= chromium.launch({
    executablePath: process.env.CHROMIUM,
    args: ["--no-sandbox"], // a container's root may not use the sandbox
  }));

/** Ends the browser, without which the process would not end. */
export const closeBrowser = async () => (await launched)?.close();

/**
 * Opens a page that shares nothing with another, and gives back what use(page) returns.
 *
 * `options` are those of Playwright's newPage: viewport, hasTouch and so on. Throws where the page
 * logged or raised an error.
 */
export async function withPage(url, use, options = {}) {
  const page = await (await browser()).newPage(options);
  try {
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
    await page.close();
  }
}
