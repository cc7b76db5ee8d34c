// Runs one Node-RED flow as an HTTP engine: what an image of Node-RED engines starts as `/app/engine node main.js`.
//
// The flow is named by AIWARE_BUILD_RUNTIME. Its "http in" nodes answer on the port of VERITONE_WEBHOOK_PROCESS;
// there is no editor and no admin API, and nothing that the flow does is written back. The port is opened when
// the flow has started, so that a toolkit without VERITONE_WEBHOOK_READY may take an open port for readiness.
//
// Nodes beside Node-RED's own are looked for in these directories, as packages below node_modules or as files:
//
//   <cache>/nodered/engines/<ENGINE_ID>-<BUILD_ID>   set up for this engine in advance
//   AIWARE_AUTOMATE_SHARE_FOLDER                     shared by the engines of an organisation
//
// Nothing is installed from here: an engine that installs packages when it starts does so in each instance.
"use strict";
const fs = require("node:fs");
const http = require("node:http");
const os = require("node:os");
const path = require("node:path");

const CACHE = process.env.ORB_TOOLKIT_CACHE || "/cache";
// A runtime definition holds its flow under one of these, at some depth; a text is JSON once more.
const HOLDERS = ["flows", "flow", "buildRuntime", "runtime"];
const DEEPEST = 8;
// Less than the time from a toolkit's SIGTERM to its SIGKILL.
const STOP_MS = 4000;

function fail(message) {
  console.error(`error: ${message}`);
  process.exit(2);
}

function find(value, depth = 0) {
  if (Array.isArray(value)) return { flows: value };
  if (depth > DEEPEST) return undefined;
  if (typeof value === "string") {
    try {
      return find(JSON.parse(value), depth + 1);
    } catch {
      return undefined;
    }
  }
  if (value === null || typeof value !== "object") return undefined;
  for (const name of HOLDERS) {
    const found = name in value && find(value[name], depth + 1);
    if (found) return { credentials: value.credentials, ...found };
  }
  return undefined;
}

// The nodes of the flow, and its credentials if they are there. Ends the program if there is no flow.
function readDefinition(file) {
  let definition;
  try {
    definition = JSON.parse(fs.readFileSync(file, "utf8"));
  } catch (error) {
    fail(`AIWARE_BUILD_RUNTIME: ${file} cannot be read as JSON: ${error.message}`);
  }
  const found = find(definition);
  if (!found) {
    const names = HOLDERS.map((name) => `"${name}"`).join(", ");
    fail(`${file} holds no flow: expected an array of nodes, or an object that has one under ${names}`);
  }
  found.flows.forEach((node, index) => {
    if (!node || typeof node.id !== "string" || typeof node.type !== "string") {
      fail(`${file}: node ${index} of the flow has no "id" and "type"; export it from Node-RED as JSON`);
    }
  });
  return found;
}

// An engine without a route would look well, and answer 404 to each call.
function checkRoute(flows, wanted) {
  const off = new Set(flows.filter((node) => node.disabled).map((node) => node.id));
  const routes = flows
    .filter((node) => node.type === "http in" && node.method === "post" && !node.d && !off.has(node.z))
    .map((node) => `/${String(node.url).replace(/^\/+/, "")}`);
  // Others are patterns.
  if (routes.some((route) => route === wanted || /[:*?+()]/.test(route))) return;
  const there = routes.length ? `; it has ${routes.join(", ")}` : "";
  fail(`the flow has no "http in" node for POST ${wanted}, the path of VERITONE_WEBHOOK_PROCESS${there}`);
}

function loadNodeRed() {
  try {
    return require("node-red");
  } catch (error) {
    if (error.code !== "MODULE_NOT_FOUND") throw error;
    const version = require("./package.json").dependencies["node-red"];
    const directory = process.env.ORB_NODE_RED || __dirname;
    fail(`node-red is not installed: npm install --prefix ${directory} "node-red@${version}"`);
  }
}

const isDirectory = (name) => fs.statSync(name, { throwIfNoEntry: false })?.isDirectory();

// Where else nodes may be.
function nodeDirectories() {
  const { ENGINE_ID, BUILD_ID, AIWARE_AUTOMATE_SHARE_FOLDER: shared } = process.env;
  const prepared = ENGINE_ID && BUILD_ID && path.join(CACHE, "nodered", "engines", `${ENGINE_ID}-${BUILD_ID}`);
  return [prepared, shared].filter((name) => name && isDirectory(name)).map((name) => path.resolve(name));
}

// What Node-RED asks a storage for. Nothing is kept: the flow is the build's, whatever happens here.
function storageOf({ flows, credentials }) {
  const nothing = async () => ({});
  const forget = async () => {};
  return {
    init: forget,
    getFlows: async () => flows,
    saveFlows: forget,
    getCredentials: async () => credentials || {},
    saveCredentials: forget,
    getSettings: nothing,
    saveSettings: forget,
    getSessions: nothing,
    saveSessions: forget,
    getLibraryEntry: async () => [],
    saveLibraryEntry: forget,
  };
}

function main() {
  const file = process.env.AIWARE_BUILD_RUNTIME;
  if (!file) fail("AIWARE_BUILD_RUNTIME is not set: it names the file that holds the flow");
  const where = new URL(process.env.VERITONE_WEBHOOK_PROCESS || "http://127.0.0.1:1880/process");
  const definition = readDefinition(file);
  checkRoute(definition.flows, where.pathname);
  const RED = loadNodeRed();
  if (process.argv.includes("--check")) return;

  const server = http.createServer((request, response) => RED.httpNode(request, response));
  const userDir = fs.mkdtempSync(path.join(os.tmpdir(), "orbtrio-node-red-"));
  process.on("exit", () => fs.rmSync(userDir, { recursive: true, force: true }));
  // Or Node-RED complains that there is none.
  fs.writeFileSync(path.join(userDir, "package.json"), "{}");
  RED.init(server, {
    userDir,
    nodesDir: nodeDirectories(),
    storageModule: storageOf(definition),
    credentialSecret: process.env.NODE_RED_CREDENTIAL_SECRET || false,
    httpAdminRoot: false,
    httpNodeRoot: "/",
    // Of JSON and form fields; a file in a form has no limit.
    apiMaxLength: "64mb",
    externalModules: {
      autoInstall: false,
      palette: { allowInstall: false, allowUpload: false },
      modules: { allowInstall: false },
    },
    telemetry: { enabled: false, updateNotification: false },
    diagnostics: { enabled: false, ui: false },
    runtimeState: { enabled: false, ui: false },
    functionExternalModules: false,
    logging: { console: { level: "info", metrics: false, audit: false } },
  });

  let stopping = false;
  const stop = () => {
    if (stopping) return;
    stopping = true;
    setTimeout(() => process.exit(1), STOP_MS).unref();
    server.close();
    server.closeIdleConnections();
    RED.stop().then(() => process.exit(0), () => process.exit(1));
  };
  process.on("SIGTERM", stop);
  process.on("SIGINT", stop);

  // Node-RED waits for an editor in which somebody would mend the flow. Nobody will.
  RED.events.on("runtime-event", ({ id, payload }) => {
    if (id !== "runtime-state" || !payload || !payload.error) return;
    const missing = payload.types || (payload.modules || []).map(({ module }) => module || "?");
    const directories = nodeDirectories().join(" or ") || "AIWARE_AUTOMATE_SHARE_FOLDER";
    fail(`the flow cannot start: ${payload.error}: ${[missing].flat().join(", ")}; install it in ${directories}`);
  });
  RED.events.once("flows:started", () => {
    server.on("error", (error) => fail(`${where.host} cannot be listened at: ${error.message}`));
    server.listen(where.port || 80, where.hostname, () => {
      console.log(`Node-RED ${RED.version()}: the flow answers at ${where.href}`);
    });
  });
  RED.start().catch((error) => fail(`Node-RED does not start: ${error.message}`));
}

main();
