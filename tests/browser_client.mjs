// Opens the browser client at a URL and prints what it shows, as JSON.

import { withPage } from "./browser.mjs";

const shown = await withPage(process.argv[2], async (page) => {
  await page.waitForFunction(() => !document.querySelector("#verdict").textContent.endsWith("…"));
  return {
    verdict: await page.textContent("#verdict"),
    rows: await page.$$eval("tbody tr", (rows) =>
      rows.map(({ cells }) => Array.from(cells, ({ textContent }) => textContent)),
    ),
    isolated: await page.evaluate(() => globalThis.crossOriginIsolated),
  };
});
console.log(JSON.stringify(shown));
