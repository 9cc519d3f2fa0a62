// The side panel: search, what is known of the selection, filters. Text of the graph is only ever set as text.
function el(tag, properties, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(properties || {})) {
    if (name in made) made[name] = value;
    else made.setAttribute(name, value);
  }
  made.append(...children.filter((child) => child !== null));
  return made;
}

// A search field whose list of entities works with mouse and keys.
function makePicker(input, graph, state, onPick) {
  const list = el("ul", { id: `${input.id}-list`, role: "listbox", hidden: true });
  input.after(list);
  for (const [name, value] of [["role", "combobox"], ["aria-controls", list.id], ["aria-autocomplete", "list"], ["aria-expanded", "false"]]) {
    input.setAttribute(name, value);
  }
  let found = [];
  let place = 0;

  function show(open) {
    list.hidden = !open;
    input.setAttribute("aria-expanded", String(open));
    [...list.children].forEach((row, k) => row.setAttribute("aria-selected", String(k === place && found.length > 0)));
    const row = open && found.length && list.children[place];
    if (!row) return input.removeAttribute("aria-activedescendant");
    input.setAttribute("aria-activedescendant", row.id);
    row.scrollIntoView({ block: "nearest" });
  }

  function update() {
    found = find(graph, input.value, 40).filter((node) => state.shown.nodes[node.id]);
    place = 0;
    const rows = found.map((node, k) => {
      const note = [graph.types[node.type], `${node.edges.length}`].filter(Boolean).join(", ");
      const row = el("li", { id: `${list.id}-${k}`, role: "option" }, node.name, el("small", {}, note));
      row.addEventListener("mousedown", (event) => {
        event.preventDefault();
        pick(k);
      });
      return row;
    });
    const nothing = el("li", { role: "option", "aria-disabled": "true" }, "nothing found");
    list.replaceChildren(...(rows.length ? rows : [nothing]));
    show(input.value.trim() !== "");
  }

  function pick(k) {
    if (!found[k]) return;
    input.value = found[k].name;
    show(false);
    onPick(found[k].id);
  }

  input.addEventListener("input", update);
  input.addEventListener("blur", () => show(false));
  input.addEventListener("keydown", (event) => {
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (step && found.length) {
      place = list.hidden ? place : (place + step + found.length) % found.length;
      show(true);
    } else if (event.key === "Enter") pick(place);
    else if (event.key === "Escape" && !list.hidden) {
      show(false);
      event.stopPropagation();
    } else return;
    event.preventDefault();
  });
}

function quoteOf(quote) {
  const page = quote.page === null ? "" : `, page ${quote.page}`;
  const run = quote.run;
  const made = [run[1], run[2], run[3], run[0].slice(0, 16).replace("T", " ")].filter(Boolean).map(plain).join(" · ");
  return el(
    "blockquote",
    {},
    el("p", {}, quote.text),
    el("footer", {}, `${quote.title}${page} (characters ${quote.start}–${quote.end})`, el("br"), quote.source, el("br"), made),
  );
}

function quotesOf(edge, state) {
  const known = edge.quotes.filter((quote) => quote.time <= state.time);
  return known.length ? known.map(quoteOf) : [el("p", { className: "dim" }, "no quote in this file")];
}

// One relation of an entity; its quotes are made when it is opened.
function relationRow(edge, from, graph, state, actions) {
  const other = edge.source === from ? edge.target : edge.source;
  const row = el("details", {});
  const name = el("button", { type: "button", className: "link" }, graph.nodes[other].name);
  name.addEventListener("click", () => actions.select(other));
  const count = edge.quotes.filter((quote) => quote.time <= state.time).length;
  row.append(el("summary", {}, name, " ", el("span", { className: "count" }, count === 1 ? "1 quote" : `${count} quotes`)));
  row.addEventListener("toggle", () => {
    if (row.open && row.children.length === 1) row.append(...quotesOf(edge, state));
  });
  return row;
}

function nodeDetail(node, graph, state, actions) {
  const known = [graph.types[node.type], node.community >= 0 ? `community ${node.community + 1}` : ""].filter(Boolean).join(" · ");
  const parts = [el("h2", {}, node.name)];
  if (known) parts.push(el("p", { className: "dim" }, known));
  if (node.aliases.length) parts.push(el("p", { className: "dim" }, `also ${node.aliases.join(", ")}`));
  const here = el("button", { type: "button" }, "Path from here…");
  here.addEventListener("click", () => actions.pathFrom(node.id));
  parts.push(here);
  const groups = new Map();
  for (const edge of node.edges) {
    if (!state.shown.edges[edge.id]) continue;
    const kind = graph.kinds[edge.kind];
    const key = edge.source === node.id ? `${kind} →` : `← ${kind}`;
    if (!groups.has(key)) groups.set(key, []);
    groups.get(key).push(edge);
  }
  for (const [key, edges] of [...groups].sort((a, b) => b[1].length - a[1].length)) {
    parts.push(el("h3", {}, `${key} (${edges.length})`));
    parts.push(...inPortions(edges.sort((a, b) => b.quotes.length - a.quotes.length), (edge) => relationRow(edge, node.id, graph, state, actions)));
  }
  return parts;
}

// The first hundred rows, and a button for the next hundred.
function inPortions(all, rowOf) {
  const rows = all.slice(0, 100).map(rowOf);
  if (all.length <= 100) return rows;
  const more = el("button", { type: "button" }, `${all.length - 100} more`);
  more.addEventListener("click", () => more.replaceWith(...inPortions(all.slice(100), rowOf)));
  return [...rows, more];
}

function edgeDetail(edge, graph, state, actions) {
  const ends = [edge.source, edge.target].map((id) => {
    const name = el("button", { type: "button", className: "link" }, graph.nodes[id].name);
    name.addEventListener("click", () => actions.select(id));
    return name;
  });
  return [el("p", { className: "fact" }, ends[0], ` ${graph.kinds[edge.kind]} `, ends[1]), ...quotesOf(edge, state)];
}

function pathDetail(path, graph, state, actions) {
  const names = path.nodes.map((id) => graph.nodes[id].name);
  const steps = path.edges.map((id) => el("li", {}, ...edgeDetail(graph.edges[id], graph, state, actions)));
  const count = path.edges.length === 1 ? "1 step" : `${path.edges.length} steps`;
  return [el("h2", {}, `${names[0]} to ${names[names.length - 1]}`), el("p", { className: "dim" }, count), el("ol", { className: "path" }, ...steps)];
}

function markPicture(mark) {
  const ratio = window.devicePixelRatio || 1;
  const canvas = el("canvas", { width: 16 * ratio, height: 16 * ratio, className: "mark", "aria-hidden": "true" });
  const pen = canvas.getContext("2d");
  pen.scale(ratio, ratio);
  pen.fillStyle = mark.colour;
  pen.beginPath();
  trace(pen, mark.shape, 8, 8, 5.5);
  pen.fill();
  return canvas;
}

// Check boxes for what is shown; `rows` have a key, a name, a size and perhaps a mark.
function filterBox(title, rows, hidden, onChange) {
  const boxes = rows.map((row) => {
    const box = el("input", { type: "checkbox", checked: !hidden.has(row.key) });
    box.addEventListener("change", () => {
      if (box.checked) hidden.delete(row.key);
      else hidden.add(row.key);
      onChange();
    });
    return box;
  });
  const all = (checked) => () => {
    rows.forEach((row, k) => {
      boxes[k].checked = checked;
      if (checked) hidden.delete(row.key);
      else hidden.add(row.key);
    });
    onChange();
  };
  const [every, none] = [el("button", { type: "button" }, "all"), el("button", { type: "button" }, "none")];
  every.addEventListener("click", all(true));
  none.addEventListener("click", all(false));
  const labels = rows.map((row, k) =>
    el(
      "label",
      {},
      boxes[k],
      row.mark ? markPicture(row.mark) : null,
      el("span", { className: "name" }, row.name),
      el("span", { className: "count" }, String(row.size)),
    ),
  );
  const tools = rows.length > 2 ? el("div", { className: "tools" }, every, none) : null;
  return el("fieldset", {}, el("legend", {}, title), tools, el("div", { className: "rows" }, ...labels));
}
