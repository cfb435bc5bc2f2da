// Opens the browser client at each URL that it reads, and prints what that shows, a line of JSON.

import { createInterface } from "node:readline";

import { closeBrowser, withPage } from "./browser.mjs";

const show = (url) =>
  withPage(url, async (page) => {
    await page.waitForFunction(() => !document.querySelector("#verdict").textContent.endsWith("…"));
    return {
      verdict: await page.textContent("#verdict"),
      rows: await page.$$eval("tbody tr", (rows) =>
        rows.map(({ cells }) => Array.from(cells, ({ textContent }) => textContent)),
      ),
      isolated: await page.evaluate(() => globalThis.crossOriginIsolated),
    };
  });

for await (const url of createInterface({ input: process.stdin })) {
  console.log(JSON.stringify(await show(url).catch((error) => ({ error: String(error) }))));
}
await closeBrowser();
