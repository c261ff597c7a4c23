// Prints what the trace engine of Chrome's DevTools makes of a trace: by thread, each slice's name, begin and length.
// `node chrome.mjs FOLDER_OF_THE_ENGINE TRACE`
import fs from 'node:fs';
import path from 'node:path';
import {pathToFileURL} from 'node:url';

const [, , engine, file] = process.argv;
const folder = pathToFileURL(path.join(engine, 'models', 'trace', 'handlers') + path.sep);
const names = ['MetaHandler', 'AuctionWorkletsHandler', 'SamplesHandler', 'RendererHandler'];
const handlers = await Promise.all(names.map(name => import(new URL(`${name}.js`, folder))));
const {traceEvents} = JSON.parse(fs.readFileSync(file, 'utf8'));
handlers.forEach(handler => handler.reset());
for (const event of traceEvents) {
  handlers.forEach(handler => handler.handleEvent(event));
}
for (const handler of handlers) {
  await handler.finalize({});
}
const threads = [];
for (const [pid, {threads: ofProcess}] of handlers.at(-1).data().processes) {
  for (const [tid, {name, entries}] of ofProcess) {
    threads.push([pid, tid, name, entries.map(({name, ts, dur}) => [name, ts, dur])]);
  }
}
console.log(JSON.stringify(threads));
