// The graph as the page holds it: entities, relations with their quotes, what is visible, paths. No drawing here.

// Text from documents and models, without characters that steer what is shown around them.
function plain(text) {
  return text.replace(/[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u200e\u200f\u202a-\u202e\u2066-\u2069]/g, "\ufffd");
}

function folded(text) {
  return text.normalize("NFKD").replace(/\p{M}/gu, "").toLowerCase();
}

// `raw` is what preflexor_agents/graph/explorer.py writes: lists in which numbers are places in other lists.
function readGraph(raw) {
  const started = [...new Set(raw.runs.map((run) => run[0]))].sort();
  const timeOfRun = raw.runs.map((run) => started.indexOf(run[0]));
  const nodes = raw.entities.map(([name, type, aliases, community], id) => ({
    id,
    name: plain(name).replace(/\s+/g, " "),
    type,
    community,
    aliases: aliases.map(plain),
    words: folded([name, ...aliases].join("\n")),
    edges: [],
  }));
  const edges = raw.relations.map(([source, kind, target, quotes], id) => ({
    id,
    source,
    kind,
    target,
    bend: 0,
    quotes: quotes.map(([source, page, start, end, text, run]) => ({
      title: plain(raw.sources[source][0]),
      source: plain(raw.sources[source][1]),
      page,
      start,
      end,
      text: plain(text),
      run: raw.runs[run],
      time: timeOfRun[run],
    })),
    time: quotes.reduce((first, quote) => Math.min(first, timeOfRun[quote[5]]), quotes.length ? Infinity : 0),
  }));
  for (const edge of edges) {
    nodes[edge.source].edges.push(edge);
    if (edge.target !== edge.source) nodes[edge.target].edges.push(edge);
  }
  bendParallel(edges);
  return {
    nodes,
    edges,
    types: raw.types.map(plain),
    kinds: raw.kinds.map(plain),
    started,
    communities: raw.communities,
    ranked: [...nodes].sort((a, b) => b.edges.length - a.edges.length || a.id - b.id),
  };
}

// Relations between the same two entities are drawn beside one another.
function bendParallel(edges) {
  const between = new Map();
  for (const edge of edges) {
    const key = `${Math.min(edge.source, edge.target)} ${Math.max(edge.source, edge.target)}`;
    if (!between.has(key)) between.set(key, []);
    between.get(key).push(edge);
  }
  for (const same of between.values()) {
    same.forEach((edge, place) => {
      const bend = place - (same.length - 1) / 2;
      edge.bend = edge.source < edge.target ? bend : -bend;
      if (edge.source === edge.target) edge.bend = place + 1;
    });
  }
}

// Which nodes and edges are shown, as one byte each: an entity is there if one of its relations is.
function visible(graph, state) {
  const nodes = new Uint8Array(graph.nodes.length);
  const edges = new Uint8Array(graph.edges.length);
  let [shownNodes, shownEdges] = [0, 0];
  for (const edge of graph.edges) {
    if (edge.time > state.time || state.hiddenKinds.has(edge.kind)) continue;
    const ends = [graph.nodes[edge.source], graph.nodes[edge.target]];
    if (ends.some((node) => state.hiddenTypes.has(node.type))) continue;
    edges[edge.id] = 1;
    shownEdges += 1;
    for (const node of ends) {
      shownNodes += 1 - nodes[node.id];
      nodes[node.id] = 1;
    }
  }
  return { nodes, edges, shownNodes, shownEdges };
}

// The entities whose name or alias holds the words: those that begin so first, then the better connected.
function find(graph, words, most) {
  const wanted = folded(words.trim());
  if (!wanted) return [];
  const rank = (node) => {
    const lines = node.words.split("\n");
    if (lines.includes(wanted)) return 0;
    return lines.some((line) => line.startsWith(wanted)) ? 1 : 2;
  };
  const found = graph.ranked.filter((node) => node.words.includes(wanted));
  return found.sort((a, b) => rank(a) - rank(b) || b.edges.length - a.edges.length || a.id - b.id).slice(0, most);
}

// A shortest walk over visible relations, in either direction: nodes and the edges between them, or null.
function shortestPath(graph, shown, from, to) {
  if (from === to) return { nodes: [from], edges: [] };
  const cameBy = new Map([[from, null]]);
  const queue = [from];
  for (let next = 0; next < queue.length; next += 1) {
    const here = queue[next];
    for (const edge of graph.nodes[here].edges) {
      const other = edge.source === here ? edge.target : edge.source;
      if (!shown.edges[edge.id] || cameBy.has(other)) continue;
      cameBy.set(other, edge);
      if (other === to) return walkBack(cameBy, to);
      queue.push(other);
    }
  }
  return null;
}

function walkBack(cameBy, to) {
  const path = { nodes: [to], edges: [] };
  for (let edge = cameBy.get(to); edge; edge = cameBy.get(path.nodes[0])) {
    path.edges.unshift(edge.id);
    path.nodes.unshift(edge.source === path.nodes[0] ? edge.target : edge.source);
  }
  return path;
}
