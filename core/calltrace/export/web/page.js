/* Draws what export/html.py put into the page as JSON. Names come from programs: they become text, never HTML. */
"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const ROWS = 100, DIFFERENCES = 20; // shown of a table at first, and more with each click
  const THREADS = 6; // the same of the time line
  const LANE = 10, ACTIVITY = 20; // pixels
  const LONG = 100; // characters of a name that may not be seen whole
  const HIT = "#ffd45e";
  const calm = matchMedia("(prefers-reduced-motion: reduce)");
  const dark = matchMedia("(prefers-color-scheme: dark)");
  let side = data.traces[0];
  let term = "";
  let chart = null;

  // ---- text ----

  const count = (number) => number.toLocaleString("en-US");
  const counted = (number, noun) => `${count(number)} ${noun}${number === 1 ? "" : "s"}`;

  function fixed(value, digits) {
    return value.toLocaleString("en-US", { minimumFractionDigits: digits, maximumFractionDigits: digits });
  }

  /* The same texts as the command line's. */
  function duration(ticks) {
    if (!side.ticks_per_second) return `${count(ticks)} ticks`;
    const seconds = ticks / side.ticks_per_second;
    if (seconds >= 1) return `${fixed(seconds, 3)} s`;
    if (seconds >= 1e-3) return `${fixed(seconds * 1e3, 3)} ms`;
    if (seconds >= 1e-6) return `${fixed(seconds * 1e6, 2)} µs`;
    return `${fixed(seconds * 1e9, 0)} ns`;
  }

  const weight = (number) => (side.timed ? duration(number) : counted(number, "call"));
  const share = (part, whole) => (whole ? `${fixed(Math.floor((part / whole) * 10000) / 100, 2)} %` : "-");
  const matches = (name) => term !== "" && name.toLowerCase().includes(term);

  /* The name in `parent`, what was searched for marked. Of a very long one some lines are seen; all of it on pointing. */
  function put(parent, name) {
    const place = element("div", undefined, "lines");
    if (name.length > LONG) place.title = name;
    mark(place, name);
    parent.append(place);
    return place;
  }

  function mark(parent, name) {
    let at = 0;
    const lower = name.toLowerCase();
    while (term) {
      const found = lower.indexOf(term, at);
      // Lower case may be longer than the name: then nothing is marked.
      if (found < 0 || lower.length !== name.length) break;
      parent.append(name.slice(at, found));
      parent.append(element("mark", name.slice(found, found + term.length)));
      at = found + term.length;
    }
    parent.append(name.slice(at));
  }

  function element(tag, text, cls) {
    const made = document.createElement(tag);
    if (text !== undefined) made.textContent = text;
    if (cls) made.className = cls;
    return made;
  }

  // ---- colours: one for each module, a shade for each function ----

  const colours = new Map();

  function hashed(text) {
    let hash = 2166136261;
    for (let at = 0; at < text.length; at++) hash = Math.imul(hash ^ text.charCodeAt(at), 16777619);
    return (hash ^ (hash >>> 15)) >>> 0;
  }

  const plain = () => (dark.matches ? "hsl(215 8% 58%)" : "hsl(215 16% 86%)"); // of threads

  function colour(name) {
    let found = colours.get(name);
    if (!found) {
      const module = name.split(/[!+]/)[0].replace(/^call (at )?/, "").replace(/\.dll$/i, "").toLowerCase();
      const shade = hashed(name) % 13;
      const hue = (hashed(module) % 24) * 15 + ((hashed(name) >>> 8) % 5) * 7;
      found = dark.matches ? `hsl(${hue} 30% ${56 + shade}%)` : `hsl(${hue} 52% ${72 + shade}%)`;
      colours.set(name, found);
    }
    return found;
  }

  // ---- what a trace is, as text ----

  function showSummary() {
    const section = document.getElementById("summary");
    section.querySelector("#notes").replaceChildren(...side.notes.map((note) => element("li", note)));
    const rows = [];
    for (const [label, text] of side.summary) rows.push(element("dt", label), element("dd", text));
    section.querySelector("dl").replaceChildren(...rows);
  }

  // ---- tables ----

  /* A table of rows that are made when they are shown. columns: title, key for sorting, cell(row, td). */
  function table(body, rows, columns, order, name, shown, choose) {
    const made = { shown, order, down: order.down !== false };
    const head = element("tr");
    for (const column of columns) {
      const cell = element("th", undefined, column.cls);
      const button = element("button", column.title);
      button.type = "button";
      button.addEventListener("click", () => {
        made.down = made.order === column ? !made.down : column.down !== false;
        made.order = column;
        draw();
      });
      cell.append(button);
      head.append(cell);
    }
    const whole = element("table");
    const lines = element("tbody");
    const told = element("p", undefined, "more");
    whole.append(element("thead"), lines);
    whole.tHead.append(head);
    body.replaceChildren(whole, told);

    function draw() {
      const found = term ? rows.filter((row) => matches(name(row))) : rows.slice();
      const key = made.order.key;
      const sign = made.down ? -1 : 1;
      found.sort((a, b) => {
        const [x, y] = [key(a), key(b)];
        return x < y ? -sign : x > y ? sign : name(a) < name(b) ? -1 : name(a) > name(b) ? 1 : 0;
      });
      columns.forEach((column, at) => {
        const sorted = column === made.order ? (made.down ? "descending" : "ascending") : "none";
        head.children[at].setAttribute("aria-sort", sorted);
        const arrow = sorted === "none" ? "" : made.down ? " ▾" : " ▴";
        head.children[at].firstChild.textContent = column.title + arrow;
      });
      lines.replaceChildren(
        ...found.slice(0, made.shown).map((row) => {
          const line = element("tr");
          line.dataset.name = name(row);
          for (const column of columns) {
            const cell = element("td", undefined, column.cls);
            column.cell(row, cell);
            line.append(cell);
          }
          if (choose) chosen(line, () => choose(name(row)));
          return line;
        })
      );
      told.replaceChildren();
      if (found.length > made.shown) {
        const button = element("button", "More");
        button.type = "button";
        button.addEventListener("click", () => {
          made.shown *= 4;
          draw();
        });
        told.append(`${count(made.shown)} of ${count(found.length)} shown `, button);
      } else if (!found.length) {
        told.append(term ? "No function here has that in its name." : "None.");
      }
      made.found = found.length;
    }

    made.draw = draw;
    draw();
    return made;
  }

  /* A row of a table that can be chosen, by a click or by its key. */
  function chosen(line, choose) {
    line.tabIndex = 0;
    line.addEventListener("click", choose);
    line.addEventListener("keydown", (event) => {
      if (event.key === "Enter") choose();
    });
  }

  const number = (title, key, text = count) => ({
    title,
    key,
    cell: (row, cell) => (cell.textContent = text(key(row))),
  });
  const named = (name) => ({
    title: "function or call",
    key: name,
    cls: "name",
    down: false,
    cell: (row, cell) => put(cell, name(row)),
  });

  // ---- functions, their callers and callees ----

  let functions = null;

  function showFunctions() {
    const section = document.getElementById("functions");
    const name = (row) => side.names[row[0]];
    const whole = d3.sum(side.functions, (row) => row[2]);
    const calls = number("calls", (row) => row[1]);
    const own = number("self", (row) => row[2], duration);
    const columns = side.first_only
      ? [named(name)]
      : side.timed
      ? [
          own,
          number("share", (row) => row[2], (ticks) => share(ticks, whole)),
          number("total", (row) => row[3], duration),
          calls,
          named(name),
        ]
      : [calls, named(name)];
    section.querySelector(".hint").textContent = side.told.functions;
    functions = table(section.querySelector(".body"), side.functions, columns, columns[0], name, ROWS, choose);
    showDetail(null);
  }

  function choose(name) {
    for (const line of document.querySelectorAll("#functions tbody tr"))
      line.classList.toggle("chosen", line.dataset.name === name);
    showDetail(name);
  }

  function showDetail(name) {
    const detail = document.getElementById("detail");
    if (name === null) {
      detail.replaceChildren(element("p", "Click a function to see its callers and callees.", "hint"));
      return;
    }
    const row = side.functions.find((each) => side.names[each[0]] === name);
    const head = element("h3", name);
    head.id = "chosen";
    head.tabIndex = -1;
    const within = detail.contains(document.activeElement); // who goes on from row to row by keys stays here
    const about = element("p", "Not among the functions listed.", "hint");
    if (side.first_only) about.textContent = "Its first entry was recorded.";
    else if (row)
      about.textContent =
        counted(row[1], "call") + (side.timed ? `, self ${duration(row[2])}, total ${duration(row[3])}` : "");
    const seek = element("button", "Show in the flame graph");
    seek.type = "button";
    seek.addEventListener("click", () => {
      document.getElementById("search").value = name;
      search(name);
      document.getElementById("flame").scrollIntoView();
    });
    detail.replaceChildren(head, about, ...(chart ? [seek] : []));
    for (const [title, from, to] of [
      ["Callers", 1, 0],
      ["Callees", 0, 1],
    ]) {
      const rows = side.edges.filter((edge) => edge[from] >= 0 && side.names[edge[from]] === name);
      const other = (edge) => (edge[to] < 0 ? side.nobody : side.names[edge[to]]);
      rows.sort((a, b) => (side.timed ? b[5] - a[5] : 0) || b[3] - a[3] || (other(a) < other(b) ? -1 : 1));
      const whole = element("table");
      whole.id = title.toLowerCase();
      const heads = side.timed ? ["self", "total", "calls", "function or call"] : ["calls", "function or call"];
      const line = element("tr");
      heads.forEach((text, at) => line.append(element("th", text, at === heads.length - 1 ? "name" : "")));
      whole.append(element("thead"), element("tbody"));
      whole.tHead.append(line);
      for (const edge of rows.slice(0, 500)) {
        const line = element("tr");
        line.dataset.name = other(edge);
        if (side.timed) line.append(element("td", duration(edge[4])), element("td", duration(edge[5])));
        line.append(element("td", count(edge[3])));
        const cell = element("td", undefined, "name");
        const place = put(cell, other(edge));
        if (edge[2]) place.append(element("small", "  by a tail jump"));
        line.append(cell);
        if (edge[to] >= 0) chosen(line, () => choose(other(edge)));
        whole.tBodies[0].append(line);
      }
      detail.append(element("h3", `${title} (${count(rows.length)})`));
      detail.append(rows.length ? whole : element("p", "None recorded.", "hint"));
    }
    if (within) head.focus();
  }

  // ---- flame graph ----

  function stacks() {
    const made = side.stacks.parent.map((parent, at) => ({
      name: side.names[side.stacks.name[at]],
      own: side.stacks.self[at],
      hidden: side.stacks.hidden[at],
      calls: side.stacks.calls[at],
      value: side.stacks.self[at] + side.stacks.hidden[at],
      parent,
      thread: parent < 0,
    }));
    const root = { name: "all threads", thread: true, own: 0, hidden: 0, calls: 0, value: 0, children: [] };
    for (let at = made.length - 1; at >= 0; at--) {
      const above = made[at].parent < 0 ? root : made[made[at].parent];
      above.value += made[at].value;
      (above.children ??= []).push(made[at]);
    }
    made.concat(root).forEach((one) => one.children?.sort((a, b) => b.value - a.value || (a.name < b.name ? -1 : 1)));
    return root.children.length === 1 ? root.children[0] : root;
  }

  function told(frame) {
    const one = frame.data;
    const parts = [`${one.name}: ${weight(one.value)}, ${share(one.value, whole)}`];
    if (side.timed && one.calls) parts.push(`self ${duration(one.own)}`, counted(one.calls, "call"));
    if (one.hidden) parts.push(`${weight(one.hidden)} of it not told apart`);
    return parts.join(", ");
  }

  let whole = 0;

  function showFlame() {
    const section = document.getElementById("flame");
    const body = section.querySelector(".body");
    section.querySelector(".hint").textContent = side.told.stacks;
    section.querySelector(".tools").hidden = true;
    body.replaceChildren();
    chart = null;
    if (side.stackless) return;
    const tree = stacks();
    whole = tree.value;
    if (!whole) return;
    section.querySelector(".tools").hidden = false;
    chart = flamegraph
      .default()
      .width(body.clientWidth)
      .inverted(true)
      .cellHeight(19)
      .minFrameSize(1)
      .transitionDuration(calm.matches ? 0 : 250)
      .resetHeightOnZoom(true)
      .setLabelHandler(told)
      .setDetailsElement(document.getElementById("details"))
      .setSearchMatch((frame) => !frame.data.thread && matches(frame.data.name))
      .setSearchHandler((frames, sum) => found(frames.length, sum))
      .setColorMapper((frame) => (frame.highlight ? HIT : frame.data.thread ? plain() : colour(frame.data.name)))
      .onClick((frame) => (document.getElementById("reset").disabled = !frame.parent));
    d3.select(body).datum(tree).call(chart);
    document.getElementById("reset").disabled = true;
  }

  function found(frames, sum) {
    document.getElementById("found").textContent = term ? `${share(sum, whole)} in ${counted(frames, "stack")}` : "";
  }

  // ---- time line ----

  let threads = THREADS;

  function showTimeline() {
    const section = document.getElementById("timeline");
    section.querySelector(".hint").textContent = side.told.threads;
    const shown = side.threads.slice(0, threads);
    section.querySelector(".body").replaceChildren(...(shown.length ? [axis()] : []), ...shown.map(lanes));
    const more = section.querySelector(".more");
    more.replaceChildren();
    if (side.threads.length > shown.length) {
      const button = element("button", "Show all");
      button.type = "button";
      button.addEventListener("click", () => {
        threads = Infinity;
        showTimeline();
      });
      more.append(`${count(shown.length)} of ${counted(side.threads.length, "thread")} shown `, button);
    }
    drawTimeline();
  }

  const when = (position) => (side.timed ? duration(position) : count(position));

  function axis() {
    const line = element("div", undefined, "thread axis");
    line.append(element("div"), element("div"));
    line.dataset.marks = side.marks.length;
    return line;
  }

  function drawAxis(line) {
    const place = line.lastChild;
    const width = place.clientWidth;
    const scale = d3.scaleLinear([0, side.span], [0, width]);
    const ticks = Math.max(2, Math.floor(width / 130));
    place.replaceChildren();
    const svg = d3.select(place).append("svg").attr("width", width).attr("height", 24);
    // Round numbers of the unit that they are told in.
    const unit = side.ticks_per_second && side.timed ? side.ticks_per_second : 1;
    const at = d3.ticks(0, side.span / unit, ticks).map((value) => value * unit);
    const bottom = svg.append("g").attr("transform", "translate(0,22)");
    bottom.call(d3.axisTop(scale).tickValues(at.filter((value) => scale(value) < width - 40)).tickFormat(short).tickSize(4));
    bottom.select(".tick text").attr("text-anchor", "start");
  }

  function short(value) {
    if (!side.timed || !side.ticks_per_second) return count(Math.round(value));
    const seconds = value / side.ticks_per_second;
    const [factor, unit] = side.span >= side.ticks_per_second ? [1, "s"]
      : side.span >= side.ticks_per_second * 1e-3 ? [1e3, "ms"] : [1e6, "µs"];
    return `${(seconds * factor).toLocaleString("en-US", { maximumSignificantDigits: 6 })} ${unit}`;
  }

  function lanes(thread) {
    const line = element("div", undefined, "thread");
    const label = element("div", `thread ${thread.index}`);
    label.append(element("small", `id ${thread.id}`), element("small", counted(thread.calls, "call")));
    if (thread.lost) label.append(element("small", `${counted(thread.lost, "event")} lost`));
    const canvas = element("canvas");
    const place = element("div");
    place.append(canvas);
    line.append(label, place);
    canvas.addEventListener("mousemove", (event) => point(event, thread, canvas));
    canvas.addEventListener("mouseleave", () => tip(null));
    canvas.addEventListener("click", (event) => {
      const run = under(event, thread, canvas).run;
      if (run) {
        tip(null);
        choose(side.names[run[2]]);
        document.getElementById("functions").scrollIntoView();
      }
    });
    line.thread = thread;
    return line;
  }

  function drawTimeline() {
    const styles = getComputedStyle(document.documentElement);
    const style = (name) => styles.getPropertyValue(name).trim();
    for (const line of document.querySelectorAll("#timeline .thread")) {
      if (!line.thread) drawAxis(line);
      else drawThread(line.thread, line.querySelector("canvas"), style);
    }
  }

  function drawThread(thread, canvas, style) {
    const levels = thread.levels.length;
    const width = canvas.parentNode.clientWidth, height = ACTIVITY + 3 + levels * LANE;
    const ratio = window.devicePixelRatio || 1;
    canvas.width = width * ratio;
    canvas.height = height * ratio;
    canvas.style.height = `${height}px`;
    const draw = canvas.getContext("2d");
    draw.scale(ratio, ratio);
    const step = width / side.columns;
    const most = d3.max(thread.activity, (each) => each[1]) || 1;
    draw.fillStyle = style("--bar");
    for (const [column, calls] of thread.activity) {
      const tall = Math.max(1, (calls / most) * ACTIVITY);
      draw.fillRect(column * step, ACTIVITY - tall, Math.max(1, step), tall);
    }
    thread.levels.forEach((runs, level) => {
      for (const [column, length, name, eighths] of runs) {
        const text = side.names[name];
        draw.globalAlpha = (term && !matches(text) ? 0.18 : 1) * (0.4 + (0.6 * eighths) / 8);
        draw.fillStyle = matches(text) ? HIT : colour(text);
        draw.fillRect(column * step, ACTIVITY + 3 + level * LANE, Math.max(1, length * step), LANE - 1);
      }
    });
    draw.globalAlpha = 0.8;
    draw.fillStyle = style("--accent");
    for (const [, at] of side.marks) draw.fillRect((at / side.span) * width, 0, 1, height);
    draw.globalAlpha = 1;
  }

  function under(event, thread, canvas) {
    const box = canvas.getBoundingClientRect();
    const column = Math.min(side.columns - 1, Math.max(0, Math.floor(((event.clientX - box.left) / box.width) * side.columns)));
    const level = Math.floor((event.clientY - box.top - ACTIVITY - 3) / LANE);
    const runs = thread.levels[level] || [];
    return { column, level, run: runs.find((run) => run[0] <= column && column < run[0] + run[1]) };
  }

  function point(event, thread, canvas) {
    const { column, run } = under(event, thread, canvas);
    const calls = thread.activity.find((each) => each[0] === column);
    const from = Math.min(column * side.column_ticks, side.span), to = Math.min(from + side.column_ticks, side.span);
    const lines = [`${side.timed ? "" : "events "}${when(from)} to ${when(to)}`];
    if (run) lines.push(`${side.names[run[2]]}${run[3] < 8 ? `: most of it, ${Math.round(run[3] * 12.5)} %` : ""}`);
    lines.push(`${counted(calls ? calls[1] : 0, "call")} begun`);
    const near = side.marks.filter(([, at]) => Math.floor(at / side.column_ticks) === column);
    for (const [name] of near) lines.push(`mark ${name}`);
    tip(lines.join("\n"), event);
  }

  function tip(text, event) {
    const box = document.getElementById("tip");
    box.hidden = text === null;
    if (text === null) return;
    box.textContent = text;
    const left = Math.min(event.clientX + 14, innerWidth - box.offsetWidth - 8);
    const below = event.clientY + 16 + box.offsetHeight < innerHeight;
    box.style.left = `${left}px`;
    box.style.top = `${below ? event.clientY + 16 : event.clientY - box.offsetHeight - 10}px`;
  }

  // ---- differences ----

  const lists = [];

  function showDifferences() {
    const section = document.getElementById("differences");
    const told = data.differences;
    section.hidden = !told;
    if (!told) return;
    const body = section.querySelector(".body");
    for (const note of told.notes) body.append(element("p", note, "note"));
    for (const group of told.groups) {
      const place = element("div");
      place.id = group.id;
      const name = (row) => row[0];
      const change = number("B − A", (row) => row[2] - row[1], (value) => (value > 0 ? "+" : value < 0 ? "−" : "") + count(Math.abs(value)));
      const cell = change.cell;
      change.cell = (row, td) => {
        cell(row, td);
        td.classList.add(row[2] > row[1] ? "more" : "less");
      };
      const columns = [number("A", (row) => row[1]), number("B", (row) => row[2]), change, named(name)];
      columns[3].cell = (row, td) => {
        const place = put(td, row[0]);
        if (row[3]) place.append(element("small", `  ${row[3]}`));
      };
      const most = { ...columns[2], key: (row) => Math.abs(row[2] - row[1]) };
      columns[2] = most;
      body.append(element("h3", `${group.title}: ${group.count ? counted(group.count, "function") : "nothing"}`));
      if (group.left) body.append(element("p", group.left, "hint"));
      if (!group.count) continue;
      body.append(place);
      lists.push(table(place, group.rows, columns, most, name, DIFFERENCES, null));
    }
  }

  // ---- all of it ----

  function search(text) {
    term = text.trim().toLowerCase();
    functions.shown = ROWS;
    functions.draw();
    for (const list of lists) list.draw();
    drawTimeline();
    document.getElementById("found").textContent = "";
    document.documentElement.dataset.search = term; // for tests: it is done
    if (!chart) return;
    if (term) chart.search(term);
    else chart.clear();
  }

  function show() {
    showSummary();
    showTimeline();
    showFlame();
    showFunctions();
    search(document.getElementById("search").value);
  }

  const sides = document.getElementById("sides");
  sides.hidden = data.traces.length < 2;
  for (const each of data.traces) {
    const button = element("button", `${each.letter}: ${each.file}`);
    button.type = "button";
    button.setAttribute("aria-pressed", String(each === side));
    button.addEventListener("click", () => {
      side = each;
      for (const other of sides.children) other.setAttribute("aria-pressed", String(other === button));
      show();
    });
    sides.append(button);
  }
  const input = document.getElementById("search");
  let waiting = 0;
  input.addEventListener("input", () => {
    clearTimeout(waiting);
    waiting = setTimeout(() => search(input.value), 150);
  });
  document.addEventListener("keydown", (event) => {
    if (event.key === "/" && document.activeElement !== input) {
      event.preventDefault();
      input.focus();
      input.select();
    }
    if (event.key === "Escape" && input.value) {
      input.value = "";
      search("");
    }
  });
  document.getElementById("reset").addEventListener("click", () => chart?.resetZoom());
  dark.addEventListener("change", () => {
    colours.clear();
    show();
  });
  let resizing = 0;
  addEventListener("resize", () => {
    clearTimeout(resizing);
    resizing = setTimeout(() => {
      drawTimeline();
      chart?.width(document.querySelector("#flame .body").clientWidth).update();
    }, 100);
  });
  showDifferences();
  show();
  document.documentElement.dataset.ready = "true";
})();
