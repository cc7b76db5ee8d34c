// A sample engine in JavaScript, with nothing but Node.js: a stream engine that hands in each line of its input
// as a result while the input still comes, sends heartbeats, and says when it is done.
//
//   VERITONE_WEBHOOK_READY=http://127.0.0.1:8888/readyz VERITONE_WEBHOOK_PROCESS=http://127.0.0.1:8888/process \
//     orbtrio-toolkit --engine-id lines -- node lines.js
"use strict";
const http = require("node:http");
const readline = require("node:readline");
const { Readable } = require("node:stream");

const where = new URL(process.env.VERITONE_WEBHOOK_PROCESS || "http://127.0.0.1:8888/process");
const ready = new URL(process.env.VERITONE_WEBHOOK_READY || "http://127.0.0.1:8888/readyz");

class TaskOver extends Error {}

async function post(url, document) {
  const response = await fetch(url, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify(document),
  });
  const text = await response.text();
  // Nobody waits for this task any more: its job was cancelled, or has taken too long.
  if (response.status === 404 || response.status === 410) throw new TaskOver(text);
  if (!response.ok) throw new Error(`a webhook answers ${response.status}: ${text}`);
}

async function work(fields) {
  let messagesWritten = 0;
  const beat = (status, more) => post(fields.heartbeatWebhook, { status, messagesWritten, ...more });
  const beats = setInterval(() => beat("running").catch(() => {}), 1000);
  try {
    const input = await fetch(fields.cacheURI);
    if (!input.ok) throw new Error(`the input answers ${input.status}`);
    for await (const line of readline.createInterface({ input: Readable.fromWeb(input.body) })) {
      await post(fields.resultWebhook, {
        chunkContext: fields.chunkContext,
        output: { object: [{ type: "line", text: line }] },
      });
      messagesWritten += 1;
    }
    await beat("complete");
  } catch (error) {
    if (error instanceof TaskOver) return;
    await beat("failed", { failureReason: "stream_read_error", failureMsg: String(error) });
  } finally {
    clearInterval(beats);
  }
}

async function answer(request, response) {
  const path = new URL(request.url, where).pathname;
  if (request.method === "GET" && path === ready.pathname) return response.end();
  if (request.method !== "POST" || path !== where.pathname) return response.writeHead(404).end();
  const form = await new Response(Readable.toWeb(request), { headers: request.headers }).formData();
  const fields = Object.fromEntries(form);
  response.setHeader("content-type", "application/json");
  response.end(JSON.stringify({ estimatedProcessingTimeInSeconds: Number(fields.maxTTL) || 60 }));
  await work(fields);
}

http
  .createServer((request, response) =>
    answer(request, response).catch((error) => {
      console.error(error);
      if (!response.headersSent) response.writeHead(400).end(String(error));
    }),
  )
  .listen(where.port || 80, where.hostname);
