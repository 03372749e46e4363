"use strict";
(() => {
  const root = document.documentElement;
  const find = (id) => document.getElementById(id);
  const make = (tag, text, attributes = {}) => {
    const node = document.createElement(tag);
    if (text !== undefined) node.textContent = text;
    for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
    return node;
  };
  const whole = (n) => n.toLocaleString("en-GB");

  // ------------------------------------------------------------------ what the page carries
  const unpack = async (id) => {
    const bytes = Uint8Array.from(atob(find("held-" + id).textContent), (c) => c.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    return new Uint8Array(await new Response(stream).arrayBuffer());
  };
  const text = async (id) => new TextDecoder().decode(await unpack(id));
  const address = (bytes, type) => URL.createObjectURL(new Blob([bytes], { type }));
  const once = (make_) => { let made; return () => (made ??= make_()); };
  const save = (bytes, type, name) => {
    const link = make("a", "", { href: address(bytes, type), download: name });
    document.body.append(link);
    link.click();
    link.remove();
  };

  // A text a spreadsheet would run as a formula goes behind an apostrophe; numbers do not.
  const neutral = (value) => (/^[=+\-@\t\r]/.test(value) && !Number.isFinite(Number(value)) ? "'" + value : value);
  const quoted = (value) => {
    const safe = neutral(String(value));
    return /[",\n\r]/.test(safe) ? '"' + safe.replaceAll('"', '""') + '"' : safe;
  };
  const csv = (rows) => rows.map((row) => row.map(quoted).join(",")).join("\n") + "\n";

  // ------------------------------------------------------------------ light and dark, where we are
  const isDark = () => (root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches);
  const nav = document.querySelector("nav");
  const theme = make("button", "", { type: "button", id: "theme" });
  const label = () => { theme.textContent = isDark() ? "Light page" : "Dark page"; };
  theme.addEventListener("click", () => {
    root.dataset.theme = isDark() ? "light" : "dark";
    try { localStorage.setItem("nicheloop-theme", root.dataset.theme); } catch { /* no storage */ }
    label();
  });
  label();
  if (nav) {
    nav.append(theme);
    const links = new Map([...nav.querySelectorAll("a")].map((a) => [a.getAttribute("href").slice(1), a]));
    const seen = new IntersectionObserver((entries) => {
      for (const entry of entries) {
        if (!entry.isIntersecting) continue;
        for (const a of links.values()) a.removeAttribute("aria-current");
        links.get(entry.target.id)?.setAttribute("aria-current", "true");
      }
    }, { rootMargin: "0px 0px -80% 0px" });
    for (const section of document.querySelectorAll("main > section")) seen.observe(section);
  }

  // ------------------------------------------------------------------ downloads of figures
  for (const link of document.querySelectorAll("a[data-held]")) {
    link.addEventListener("click", async (event) => {
      event.preventDefault();
      const held = link.dataset.held;
      if (held === "image") {
        const source = link.closest("figure").querySelector("img").src.split(",")[1];
        save(Uint8Array.from(atob(source), (c) => c.charCodeAt(0)), "image/png", link.download);
      } else save(await unpack(held), held.startsWith("svg") ? "image/svg+xml" : "text/csv", link.download);
    });
  }

  // ------------------------------------------------------------------ tables
  const library = once(async () => {
    document.head.append(make("style", await text("lib-tables-style")));
    document.head.append(document.querySelector("head > style")); // the page's own style has the last word
    return (await import(address(await unpack("lib-tables"), "text/javascript"))).jQuery;
  });
  const enhance = async (box) => {
    const $ = await library();
    const table = box.querySelector("table");
    const heads = [...table.tHead.rows[0].cells];
    const names = heads.map((th) => th.textContent);
    let all = table.tBodies[0].rows.length;
    if (box.dataset.rest) {
      const rest = JSON.parse(await text(box.dataset.rest));
      all = rest.all;
      rest.rows.forEach((row, i) => {
        const line = table.tBodies[0].insertRow();
        row.forEach((value, k) => {
          const cell = line.insertCell();
          const number = heads[k].classList.contains("num");
          cell.textContent = value;
          cell.className = (number ? "num" : "text") + (value === "NA" ? " na" : "") + (value.length > 40 ? " long" : "");
          if (rest.order[i][k]) cell.dataset.order = rest.order[i][k];
          else if (number) cell.dataset.order = value === "NA" ? "" : value;
        });
      });
    }
    const rows = table.tBodies[0].rows.length;
    const numbers = heads.flatMap((th, i) => (th.classList.contains("num") ? [i] : []));
    $(table).DataTable({
      order: [], autoWidth: false, paging: rows > 15, pageLength: 12, info: rows > 15, searching: rows > 3,
      lengthMenu: [[12, 50, 200, -1], [12, 50, 200, "all"]],
      layout: { topStart: rows > 15 ? "pageLength" : null, topEnd: rows > 3 ? "search" : null, bottomStart: rows > 15 ? "info" : null, bottomEnd: rows > 15 ? "paging" : null },
      language: { search: "Filter:", emptyTable: "No row" },
      columnDefs: [{ targets: "_all", type: "string" }, { targets: numbers, type: "num" }],
    });
    const api = $(table).DataTable();
    const shown = () => [names, ...api.rows({ search: "applied", order: "applied" }).nodes().toArray().map(
      (tr) => [...tr.cells].map((td) => (td.dataset.order && Number.isFinite(Number(td.dataset.order)) ? td.dataset.order : td.textContent)))];
    const tools = make("div", undefined, { class: "tools" });
    const title = box.querySelector(".caption strong").textContent;
    const copy = make("button", "Copy", { type: "button", "aria-label": `Copy: ${title}` });
    copy.addEventListener("click", async () => {
      const rows_ = shown().map((row) => row.map(neutral).join("\t")).join("\n");
      try { await navigator.clipboard.writeText(rows_); } catch {
        const area = make("textarea", rows_);
        document.body.append(area);
        area.select();
        document.execCommand("copy");
        area.remove();
      }
      copy.textContent = "Copied";
      setTimeout(() => { copy.textContent = "Copy"; }, 1500);
    });
    const download = make("button", "CSV", { type: "button", "aria-label": `CSV: ${title}` });
    download.addEventListener("click", () => save(csv(shown()), "text/csv", `${box.id.slice(6)}.csv`));
    tools.append(copy, download, make("span", "Wider than the page: scroll the table sideways.", { class: "sideways" }));
    const scroller = box.querySelector(".dt-layout-table > div") ?? box.querySelector(".scroll");
    new ResizeObserver(() => box.classList.toggle("wide", scroller.scrollWidth > scroller.clientWidth + 1)).observe(scroller);
    if (all > rows) tools.append(make("span", `the first ${whole(rows)} of ${whole(all)} rows; all are in the full table`));
    box.querySelector(".more").before(tools);
    box.dataset.ready = "true";
  };
  const near = (node, act) => new IntersectionObserver((entries, self) => {
    if (entries.some((e) => e.isIntersecting)) { self.disconnect(); act(); }
  }, { rootMargin: "400px" }).observe(node);
  if (root.classList.contains("js") && find("held-lib-tables")) {
    for (const box of document.querySelectorAll(".table")) near(box, () => enhance(box));
  }

  // ------------------------------------------------------------------ the map
  const explorer = find("explorer");
  if (!explorer || !root.classList.contains("js")) return;
  const bokeh = once(async () => {
    const script = make("script", undefined, { src: address(await unpack("lib-bokeh"), "text/javascript") });
    await new Promise((done, failed) => { script.onload = done; script.onerror = failed; document.head.append(script); });
    return window.Bokeh;
  });
  const GREY = "#BBBBBB", STEPS = 254, MISSING = 255;
  const read = once(async () => {
    const bytes = await unpack("map");
    const length = new DataView(bytes.buffer).getUint32(0, true);
    const head = JSON.parse(new TextDecoder().decode(bytes.subarray(4, 4 + length)));
    const data = bytes.slice(4 + length);
    for (const map of head.maps) {
      for (const axis of ["x", "y"]) {
        const { at, low, high } = map[axis];
        const steps = new Uint16Array(data.slice(at, at + 2 * head.n).buffer);
        map[axis].values = Float32Array.from(steps, (v) => low + (v / 65535) * (high - low));
      }
    }
    for (const column of head.columns) column.codes = data.subarray(column.at, column.at + head.n);
    for (const [label, word] of Object.entries(head.words)) words.set(label, word);
    head.names = new TextDecoder().decode(data.subarray(head.ids.at, head.ids.at + head.ids.length)).split("\n");
    return head;
  });
  const value = (column, i) => {
    const code = column.codes[i];
    if (code === MISSING) return "NA";
    if (column.kind === "labels") return column.values[code];
    return (column.low + (code / STEPS) * (column.high - column.low)).toPrecision(3);
  };
  const words = new Map(); // labels as a reader writes them
  const plain = (word) => words.get(word) ?? word;
  const choose = { colour: find("map-colour"), filter: find("map-filter"), value: find("map-value"), facet: find("map-facet") };
  const state = { order: [], source: null, facets: [], drawn: 0 };

  const fill = (head) => {
    const groups = [["labels", "Labels"], ["number", "Quality and scores"], ["gene", "Genes (log1p counts per 10,000)"]];
    for (const [kind, title] of groups) {
      const mine = head.columns.filter((c) => c.kind === kind);
      if (!mine.length) continue;
      const group = make("optgroup", undefined, { label: title });
      for (const c of mine) group.append(make("option", c.label, { value: c.name }));
      choose.colour.append(group);
    }
    choose.colour.value = head.columns.some((c) => c.name === "cell_type") ? "cell_type" : head.columns[0]?.name;
    for (const [select, none] of [[choose.filter, "every cell"], [choose.facet, "none"]]) {
      select.append(make("option", none, { value: "" }));
      for (const c of head.columns) if (c.kind === "labels" && (select === choose.filter || c.values.length <= 40)) select.append(make("option", c.label, { value: c.name }));
    }
  };

  const colours = (head, column, order) => {
    if (column.kind === "labels") return Array.from(order, (i) => column.colours[column.codes[i]] ?? GREY);
    const last = head.ramp.length - 1;
    return Array.from(order, (i) => (column.codes[i] === MISSING ? GREY : head.ramp[Math.round((column.codes[i] / STEPS) * last)]));
  };
  const legend = (head, column, order) => {
    const list = find("map-legend");
    list.replaceChildren();
    const entry = (colour, words) => {
      const item = make("li");
      const mark = make("i");
      mark.style.background = colour;
      item.append(mark, words);
      list.append(item);
    };
    const missing = order.reduce((n, i) => n + (column.codes[i] === MISSING), 0);
    if (column.kind === "labels") {
      const n = new Array(column.values.length).fill(0);
      for (const i of order) if (column.codes[i] !== MISSING) n[column.codes[i]] += 1;
      column.values.forEach((name, k) => { if (n[k]) entry(column.colours[k], `${plain(name)} (${whole(n[k])})`); });
    } else {
      const item = make("li", `${column.label}: ${column.low.toPrecision(3)} `);
      const mark = make("i", undefined, { class: "ramp" });
      mark.style.background = `linear-gradient(to right, ${head.ramp.join(",")})`; // the colours of the dots
      item.append(mark, column.high.toPrecision(3));
      list.append(item);
    }
    if (missing) entry(GREY, `NA (${whole(missing)})`);
  };
  const chosen = (head) => {
    const column = head.columns.find((c) => c.name === choose.filter.value);
    const wanted = choose.value.value;
    const code = column && wanted !== "" ? column.values.indexOf(wanted) : -1;
    let order = Array.from({ length: head.n }, (_, i) => i);
    if (column && wanted !== "") order = order.filter((i) => column.codes[i] === code);
    const colour = head.columns.find((c) => c.name === choose.colour.value);
    if (colour && colour.kind !== "labels") { // cells with much of it are drawn last
      const rank = (i) => (colour.codes[i] === MISSING ? -1 : colour.codes[i]);
      order.sort((a, b) => rank(a) - rank(b) || a - b);
    }
    return { order, colour };
  };
  const kept = { order: null, data: null }; // what does not change with the colour, while the cells are the same
  const columnsOf = (head, order, colour) => {
    const fresh = { colour: colours(head, colour, order), shown: order.map((i) => plain(value(colour, i))) };
    if (kept.order?.length === order.length && order.every((v, k) => v === kept.order[k])) return { ...kept.data, ...fresh };
    const data = { id: order.map((i) => head.names[i]) };
    head.maps.forEach((map, k) => {
      data[`x${k}`] = Float32Array.from(order, (i) => map.x.values[i]);
      data[`y${k}`] = Float32Array.from(order, (i) => map.y.values[i]);
    });
    for (const name of ["sample", "cell_type", "malignancy"]) {
      const column = head.columns.find((c) => c.name === name);
      if (column) data[name] = order.map((i) => plain(value(column, i)));
    }
    if (order === state.order) Object.assign(kept, { order, data });
    return { ...data, ...fresh };
  };
  const size = (n) => Math.min(6, Math.max(2, 260 / Math.sqrt(n + 1)));
  const picture = (Bokeh, head, source, k, width, height, title, ranges) => {
    const P = Bokeh.Plotting;
    const plot = P.figure({ width, height, title, tools: "pan,wheel_zoom,box_zoom,reset", toolbar_location: null, output_backend: "webgl", match_aspect: false, ...ranges });
    plot.xgrid.visible = plot.ygrid.visible = false;
    plot.xaxis.visible = plot.yaxis.visible = false;
    plot.title.text_font_size = "12px";
    plot.title.text_color = "#222222";
    plot.scatter({ field: `x${k}` }, { field: `y${k}` }, { source, size: size(head.n), fill_color: { field: "colour" }, line_color: null, fill_alpha: 0.85, nonselection_fill_alpha: 0.08, nonselection_line_color: null });
    const tips = [["cell", "@id"], ["sample", "@sample"], ["type", "@cell_type"], ["call", "@malignancy"], ["colour", "@shown"]];
    plot.add_tools(new Bokeh.HoverTool({ tooltips: tips.filter(([, field]) => field.slice(1) in source.data) }));
    return plot;
  };
  const settle = () => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)));

  const start = once(async () => {
    const [head, Bokeh] = await Promise.all([read(), bokeh()]);
    fill(head);
    const { order, colour } = chosen(head);
    state.order = order;
    state.source = new Bokeh.ColumnDataSource({ data: columnsOf(head, order, colour) });
    const room = find("map-panels").clientWidth || 800;
    const two = head.maps.length > 1 && room > 620;
    const width = Math.floor(Math.min(620, two ? room / 2 - 14 : room - 10));
    state.width = width;
    state.lassos = [];
    state.plots = head.maps.map((map, k) => picture(Bokeh, head, state.source, k, width, Math.round(width * 0.85), map.title));
    for (const plot of state.plots) {
      const lasso = new Bokeh.LassoSelectTool({ continuous: false });
      plot.add_tools(lasso);
      state.lassos.push(lasso);
    }
    const views = await Bokeh.Plotting.show(state.plots, find("map-panels"));
    state.views = views.filter((view) => state.plots.includes(view.model)); // tooltips have views of their own
    state.source.selected.properties.indices.change.connect(() => picked(head));
    legend(head, colour, order);
    await said(head);
    return { head, Bokeh };
  });
  const said = async (head) => {
    const n = state.order.length;
    const of = head.total > head.n ? ` drawn of ${whole(head.total)} cells in all (every count here is of the cells drawn)` : "";
    find("map-said").textContent = `${whole(n)} of the ${whole(head.n)} cells${of}. Hover over a cell for its name; choose Lasso and draw around cells to count them.`;
    await settle();
    state.drawn += 1;
    explorer.dataset.drawn = String(state.drawn);
  };
  const redraw = async () => {
    const first = !explorer.dataset.drawn;
    const before = { ...Object.fromEntries(Object.entries(choose).map(([k, s]) => [k, s.value])) };
    const { head, Bokeh } = await start();
    if (first && before.colour) choose.colour.value = before.colour;
    const { order, colour } = chosen(head);
    state.order = order;
    state.source.selected.indices = [];
    state.source.data = columnsOf(head, order, colour);
    legend(head, colour, order);
    await facets(head, Bokeh, colour);
    await said(head);
  };
  const facets = async (head, Bokeh, colour) => {
    const place = find("map-facets");
    place.replaceChildren();
    for (const view of state.facets) view.remove?.();
    state.facets = [];
    const column = head.columns.find((c) => c.name === choose.facet.value);
    if (!column) return;
    const plots = [];
    for (const [code, name] of column.values.entries()) {
      const mine = state.order.filter((i) => column.codes[i] === code);
      if (!mine.length) continue;
      const source = new Bokeh.ColumnDataSource({ data: columnsOf(head, mine, colour) });
      const ranges = plots.length ? { x_range: plots[0].x_range, y_range: plots[0].y_range } : limits(Bokeh, head);
      plots.push(picture(Bokeh, head, source, 0, 230, 210, `${plain(name)} (${whole(mine.length)})`, ranges));
    }
    state.facets = await Bokeh.Plotting.show(plots, place);
  };
  const limits = (Bokeh, head) => {
    const range = ({ low, high }) => new Bokeh.Range1d({ start: low - 0.04 * (high - low), end: high + 0.04 * (high - low) });
    return { x_range: range(head.maps[0].x), y_range: range(head.maps[0].y) };
  };
  const picked = (head) => {
    const place = find("map-picked");
    place.replaceChildren();
    const cells = state.source.selected.indices.map((k) => state.order[k]);
    if (!cells.length) return;
    const shown = head.total > head.n ? `of the ${whole(head.n)} cells drawn, not of all ${whole(head.total)}` : `of ${whole(head.n)} cells`;
    place.append(make("p", `${whole(cells.length)} cells under the lasso (${shown}).`));
    for (const name of [...new Set([choose.colour.value, "cell_type", "sample"])]) {
      const column = head.columns.find((c) => c.name === name && c.kind === "labels");
      if (!column) continue;
      const n = new Map();
      for (const i of cells) n.set(value(column, i), (n.get(value(column, i)) ?? 0) + 1);
      const table = make("table");
      const top = table.createTHead().insertRow();
      for (const word of [column.label, "cells drawn", "share"]) top.append(make("th", word, { scope: "col" }));
      const body = table.createTBody();
      for (const [word, k] of [...n].sort((a, b) => b[1] - a[1])) {
        const row = body.insertRow();
        row.append(make("td", plain(word)), make("td", whole(k), { class: "num" }), make("td", `${((100 * k) / cells.length).toFixed(1)} %`, { class: "num" }));
      }
      place.append(table);
    }
    const button = make("button", "CSV of these cells", { type: "button" });
    button.addEventListener("click", () => saveCells(head, cells, "cells_lasso.csv"));
    const clear = make("button", "Clear", { type: "button" });
    clear.addEventListener("click", () => { state.source.selected.indices = []; });
    const tools = make("div", undefined, { class: "tools" });
    tools.append(button, clear);
    place.append(tools);
  };
  const saveCells = (head, cells, name) => {
    const wanted = head.columns.filter((c) => c.kind !== "gene" || c.name === choose.colour.value);
    const top = ["cell_id", ...head.maps.flatMap((m) => [`${m.title} x`, `${m.title} y`]), ...wanted.map((c) => c.label)];
    const rows = cells.map((i) => [head.names[i], ...head.maps.flatMap((m) => [m.x.values[i].toFixed(3), m.y.values[i].toFixed(3)]), ...wanted.map((c) => value(c, i))]);
    save(csv([top, ...rows]), "text/csv", name);
  };

  choose.colour.addEventListener("change", redraw);
  choose.value.addEventListener("change", redraw);
  choose.facet.addEventListener("change", redraw);
  choose.filter.addEventListener("change", async () => {
    const { head } = await start();
    const column = head.columns.find((c) => c.name === choose.filter.value);
    choose.value.replaceChildren(make("option", "all", { value: "" }));
    for (const name of column?.values ?? []) choose.value.append(make("option", plain(name), { value: name }));
    choose.value.disabled = !column;
    if (!column) redraw();
  });
  find("map-lasso").addEventListener("click", async (event) => {
    await start();
    const on = event.target.getAttribute("aria-pressed") !== "true";
    event.target.setAttribute("aria-pressed", String(on));
    state.plots.forEach((plot, k) => { plot.toolbar.active_drag = on ? state.lassos[k] : plot.toolbar.tools[0]; state.lassos[k].active = on; plot.toolbar.tools[0].active = !on; });
  });
  find("map-reset").addEventListener("click", async () => { await start(); for (const view of state.views) view.reset?.(); state.source.selected.indices = []; });
  find("map-csv").addEventListener("click", async () => { const { head } = await start(); saveCells(head, state.order, "cells.csv"); });
  find("map-png").addEventListener("click", async () => {
    await start();
    for (const [k, view] of state.views.entries()) save(await view.export("png").to_blob(), "image/png", `map_${k + 1}.png`);
  });
  near(explorer, start);
  const ahead = () => { if (!explorer.dataset.drawn) { read(); bokeh(); } }; // unpacked while the first screen is read
  (window.requestIdleCallback ?? ((act) => setTimeout(act, 200)))(ahead);
  root.dataset.script = "ready";
})();
