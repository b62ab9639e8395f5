// A person at the window: logs in, reads, installs a node, watches it finish;
// axe on every page, wide and narrow, light and dark; nothing leaves the host;
// without scripts the pages read too. Run by tests/ui_browser.rs.
import { createRequire } from "node:module";
import { mkdirSync, readFileSync } from "node:fs";
import { join } from "node:path";

const { BASE, TOKEN, OUT, UI_MODULES } = process.env;
const require = createRequire(join(UI_MODULES, "package.json"));
const { chromium } = require("playwright-core");
const axe = readFileSync(require.resolve("axe-core/axe.min.js"), "utf8");
mkdirSync(OUT, { recursive: true });

const faults = [];
const must = (is, what) => { if (!is) faults.push(what); };
const browser = await chromium.launch({
  executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
  args: ["--no-sandbox", "--disable-dev-shm-usage", "--disable-background-networking"],
});
const SIZES = { wide: { width: 1360, height: 900 }, narrow: { width: 390, height: 844 } };
// axe is put in by the driver, past the policy of the pages; the policy itself
// is seen by a page without it.
const open = async (size, scheme, more = {}) => {
  const context = await browser.newContext({ viewport: SIZES[size], colorScheme: scheme, ...more });
  const page = await context.newPage();
  page.on("request", (r) => must(r.url().startsWith(BASE) || r.url().startsWith("data:"), `left the host: ${r.url()}`));
  page.on("console", (m) => must(m.type() !== "error" || /status of 40[0-9]|ERR_INTERNET_DISCONNECTED/.test(m.text()), `console at ${page.url()}: ${m.text()}`));
  page.on("pageerror", (e) => faults.push(`script at ${page.url()}: ${e}`));
  page.on("dialog", (d) => { faults.push(`a dialog: hostile text ran at ${page.url()}`); d.dismiss(); });
  return { context, page };
};
const login = async (page) => {
  await page.goto(BASE + "/");
  await page.getByLabel("API token").fill(TOKEN);
  await page.getByRole("button", { name: "Log in" }).click();
  await page.waitForURL("**/ui/");
};

// Keyboard alone, policy on.
const { context, page } = await open("wide", "light");
await page.goto(BASE + "/");
await page.keyboard.type("pv_wrong");
await page.keyboard.press("Enter");
await page.getByText("not known here").waitFor();
await page.screenshot({ path: join(OUT, "login-wrong.png") });
await page.getByLabel("API token").fill(TOKEN);
await page.keyboard.press("Enter");
await page.waitForURL("**/ui/");
await page.getByText("Live.").waitFor();
await page.keyboard.press("Tab");
must(await page.evaluate(() => document.activeElement.className) === "skip", "Tab does not come to the skip link first");
await page.keyboard.press("Enter");
must(await page.evaluate(() => document.activeElement.id) === "main", "the skip link does not lead to the page");
const build = await page.locator("#nodes a", { hasText: "node02" }).getAttribute("href");

// Reads why another failed.
await page.getByRole("link", { name: "node03" }).first().click();
await page.getByText("it never came").first().waitFor();

// Installs a node and watches it finish, without touching the page.
await page.goto(BASE + "/ui/nodes/node09");
await page.getByLabel("Profile").selectOption("base");
await page.getByRole("button", { name: "Install…" }).click();
await page.getByRole("heading", { name: "Install node09?" }).waitFor();
await page.screenshot({ path: join(OUT, "confirm.png"), fullPage: true });
await page.getByRole("button", { name: "Wipe the disk of node09 and install" }).click();
await page.waitForURL("**/ui/nodes/node09");
const rack = await context.newPage();
await rack.goto(BASE + "/ui/");
const row = rack.locator("#nodes tr", { hasText: "node09" });
await page.locator("#head .mark", { hasText: "installing" }).waitFor();
await row.getByText("installing").waitFor({ timeout: 20000 });
// The place of the keyboard survives the news.
await row.getByRole("link").focus();
await page.getByText("% of 1.0 GB").first().waitFor({ timeout: 20000 });
await page.screenshot({ path: join(OUT, "installing.png"), fullPage: true });
await page.locator("#head .mark", { hasText: "deployed" }).waitFor({ timeout: 60000 });
await row.getByText("deployed").waitFor({ timeout: 20000 });
must(await rack.evaluate(() => document.activeElement.textContent) === "node09", "news took the focus away");
await page.screenshot({ path: join(OUT, "deployed.png"), fullPage: true });

// Away and back.
await context.setOffline(true);
await page.getByText("Connection lost, last news at").waitFor({ timeout: 30000 }).catch(() => faults.push("a lost connection is not told"));
await page.screenshot({ path: join(OUT, "lost.png") });
await context.setOffline(false);
await page.getByText("Live.").waitFor({ timeout: 30000 }).catch(() => faults.push("the connection does not come back"));
const builds = await page.goto(BASE + "/ui/builds").then(() => page.locator("#rows tbody a").first().getAttribute("href"));
await context.close();

const PAGES = {
  rack: "/ui/", failed: "/ui/?state=failed", node: build, node03: "/ui/nodes/node03", node09: "/ui/nodes/node09",
  ask: "/ui/nodes/node04/install?profile=base&image=debian-12", off: "/ui/nodes/node04/power?command=off",
  builds: "/ui/builds", build: builds, files: builds + "/files", operations: "/ui/operations",
  events: "/ui/events", wrong: "/ui/events?since=yesterday", images: "/ui/images", profiles: "/ui/profiles",
  mirrors: "/ui/mirrors", software: "/ui/software", none: "/ui/nothing",
};
for (const size of Object.keys(SIZES)) for (const scheme of ["light", "dark"]) {
  const { context, page } = await open(size, scheme, { bypassCSP: true, reducedMotion: "reduce" });
  await page.goto(BASE + "/ui/login");
  await page.addScriptTag({ content: axe });
  const check = async (name) => {
    const found = await page.evaluate(() => axe.run(document, { runOnly: ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"] }));
    for (const v of found.violations) faults.push(`axe ${name} ${size} ${scheme}: ${v.id}: ${v.nodes.slice(0, 3).map((n) => n.html.slice(0, 160)).join(" | ")}`);
    const over = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
    must(over <= 0, `${name} ${size}: ${over} px wider than the screen`);
  };
  await check("login");
  await page.screenshot({ path: join(OUT, `login-${size}-${scheme}.png`), fullPage: true });
  await login(page);
  for (const [name, path] of Object.entries(PAGES)) {
    await page.goto(BASE + path);
    await page.addScriptTag({ content: axe });
    await check(name);
    await page.screenshot({ path: join(OUT, `${name}-${size}-${scheme}.png`), fullPage: true });
  }
  await context.close();
}

// Without scripts: all reads, and a power command goes through its question.
const plain = await open("wide", "light", { javaScriptEnabled: false });
await login(plain.page);
for (const [name, path] of Object.entries(PAGES)) {
  await plain.page.goto(BASE + path);
  must((await plain.page.locator("h1").count()) === 1, `${name} does not read without scripts`);
  must((await plain.page.getByRole("link", { name: "Reload" }).count()) === 1, `${name} has no way to reload`);
}
await plain.page.goto(BASE + "/ui/nodes/node04");
await plain.page.getByRole("button", { name: "Power-cycle…" }).click();
await plain.page.getByRole("button", { name: "Power-cycle node04" }).click();
await plain.page.waitForURL("**/ui/nodes/node04");
must(await plain.page.getByText("power.cycle").first().isVisible(), "the power command is not on the page");
await plain.page.getByRole("button", { name: "Log out" }).click();
await plain.page.waitForURL("**/ui/login");

await browser.close();
if (faults.length) {
  console.error([...new Set(faults)].join("\n"));
  process.exit(1);
}
console.log(`${Object.keys(PAGES).length} pages, four ways: no fault; screenshots in ${OUT}`);
