// Puts the page together: one state, changed by a few actions, drawn by the view and told by the panel.
function explore() {
  const byId = (id) => document.getElementById(id);
  const graph = readGraph(JSON.parse(byId("graph").textContent));
  const latest = graph.started.length - 1;
  const state = {
    selected: -1, edge: -1, hover: -1, path: null, from: -1, to: -1,
    time: latest, hiddenTypes: new Set(), hiddenKinds: new Set(), shown: null, colourBy: graph.communities && graph.types.length < 2 ? "community" : "type",
  };
  state.shown = visible(graph, state);
  group(graph, state.colourBy);
  const view = makeView(byId("canvas"), graph, state);
  let hold = () => {};

  const actions = {
    select(id) {
      [state.selected, state.edge, state.path] = [id, -1, null];
      tell();
    },
    pick(id) {
      actions.select(id);
      view.moveTo(id);
    },
    hover(id) {
      if (state.hover === id) return;
      state.hover = id;
      byId("canvas").classList.toggle("over", id >= 0);
      view.refresh();
    },
    hold(node, x, y) {
      view.camera.follows = false;
      hold({ hold: { node, x, y } });
    },
    click(node, edge, withShift) {
      if (withShift && node >= 0 && state.selected >= 0) {
        [state.from, state.to] = [state.selected, node];
        walk();
      } else if (node >= 0 || edge < 0) actions.select(node);
      else {
        [state.selected, state.edge, state.path] = [-1, edge, null];
        tell();
      }
    },
    pathFrom(id) {
      state.from = id;
      byId("path-box").open = true;
      byId("from").value = graph.nodes[id].name;
      byId("to").focus();
    },
  };

  function walk() {
    if (state.from < 0 || state.to < 0) return;
    [byId("from").value, byId("to").value] = [graph.nodes[state.from].name, graph.nodes[state.to].name];
    const path = shortestPath(graph, state.shown, state.from, state.to);
    [state.selected, state.edge, state.path] = [-1, -1, path];
    if (path) view.fit(path.nodes);
    tell();
    if (!path) byId("detail").replaceChildren(el("p", {}, "No path between the two among what is shown."));
  }

  // Say in the panel what is selected, and draw it.
  function tell() {
    let parts = [];
    if (state.path) parts = pathDetail(state.path, graph, state, actions);
    else if (state.edge >= 0) parts = edgeDetail(graph.edges[state.edge], graph, state, actions);
    else if (state.selected >= 0) parts = nodeDetail(graph.nodes[state.selected], graph, state, actions);
    else parts = [el("p", { className: "dim" }, "Select an entity or a relation to read the quotes it stands on.")];
    const wasInside = byId("detail").contains(document.activeElement);
    byId("detail").replaceChildren(...parts);
    const head = byId("detail").querySelector("h2, .fact");
    if (wasInside && head) {
      head.tabIndex = -1;
      head.focus();
    }
    view.refresh();
  }

  function refilter() {
    state.shown = visible(graph, state);
    if (state.selected >= 0 && !state.shown.nodes[state.selected]) state.selected = -1;
    if (state.edge >= 0 && !state.shown.edges[state.edge]) state.edge = -1;
    if (state.path && !state.path.edges.every((id) => state.shown.edges[id])) state.path = null;
    const { shownNodes, shownEdges } = state.shown;
    const of = (shown, all) => (shown === all ? `${all}` : `${shown} of ${all}`);
    byId("counts").textContent = `${of(shownNodes, graph.nodes.length)} entities, ${of(shownEdges, graph.edges.length)} relations`;
    byId("hint").hidden = shownEdges > 0;
    byId("hint").textContent = graph.edges.length ? "the filters hide everything" : "this graph is empty";
    tell();
  }

  function showFilters() {
    const groups = group(graph, state.colourBy);
    const byCommunity = state.colourBy === "community";
    const sizes = new Map();
    for (const node of graph.nodes) sizes.set(node.type, (sizes.get(node.type) || 0) + 1);
    const types = [...sizes].sort((a, b) => b[1] - a[1]).map(([key, size]) => ({
      key, size, name: graph.types[key] || "(no type)", mark: byCommunity ? null : groups.find((g) => g.key === key).mark,
    }));
    byId("types").replaceChildren(filterBox("Types", types, state.hiddenTypes, refilter));
    const uses = new Map();
    for (const edge of graph.edges) uses.set(edge.kind, (uses.get(edge.kind) || 0) + 1);
    const kinds = [...uses].sort((a, b) => b[1] - a[1]).map(([key, size]) => ({ key, size, name: graph.kinds[key] }));
    byId("kinds").replaceChildren(filterBox("Relations", kinds, state.hiddenKinds, refilter));
    if (graph.communities) byId("colour-by").replaceChildren(...["type", "community"].map(colourChoice));
    view.refresh();
  }

  function colourChoice(by) {
    const box = el("input", { type: "radio", name: "colour-by", checked: state.colourBy === by });
    box.addEventListener("change", () => {
      state.colourBy = by;
      showFilters();
      byId("colour-by").querySelector(":checked").focus();
    });
    return el("label", {}, box, by === "type" ? "by type" : "by community");
  }

  function showGrowth() {
    const [slider, play] = [byId("time"), byId("play")];
    byId("growth").hidden = latest < 1;
    [slider.max, slider.value] = [latest, latest];
    let ticking = 0;
    const show = () => {
      state.time = Number(slider.value);
      const when = graph.started[state.time].slice(0, 16).replace("T", " ");
      byId("when").textContent = `${state.time + 1} of ${latest + 1}: ${when || "time unknown"}`;
      slider.setAttribute("aria-valuetext", byId("when").textContent);
      refilter();
    };
    const stop = () => {
      clearInterval(ticking);
      ticking = 0;
      play.textContent = "Play";
    };
    slider.addEventListener("input", () => {
      stop();
      show();
    });
    play.addEventListener("click", () => {
      if (ticking) return stop();
      if (state.time === latest) slider.value = 0;
      play.textContent = "Stop";
      show();
      ticking = setInterval(() => {
        slider.value = Math.min(latest, state.time + Math.max(1, Math.round(latest / 60)));
        show();
        if (state.time === latest) stop();
      }, 600);
    });
    if (latest >= 1) show();
  }

  function chooseTheme(theme) {
    document.documentElement.dataset.theme = theme;
    view.readColours();
  }

  const dark = matchMedia("(prefers-color-scheme: dark)");
  chooseTheme(dark.matches ? "dark" : "light");
  dark.addEventListener("change", () => chooseTheme(dark.matches ? "dark" : "light"));
  byId("theme").addEventListener("click", () => chooseTheme(document.documentElement.dataset.theme === "dark" ? "light" : "dark"));
  byId("fit").addEventListener("click", () => view.fit());
  makePicker(byId("search"), graph, state, actions.pick);
  makePicker(byId("from"), graph, state, (id) => {
    state.from = id;
    walk();
  });
  makePicker(byId("to"), graph, state, (id) => {
    state.to = id;
    walk();
  });
  document.addEventListener("keydown", (event) => {
    const writing = event.target instanceof HTMLInputElement && event.target.type === "search";
    if (event.key === "/" && !writing) {
      event.preventDefault();
      byId("search").select();
    } else if (event.key === "Escape" && !event.defaultPrevented) actions.select(-1);
  });
  listen(byId("canvas"), view, state, actions);
  new ResizeObserver(() => view.resize()).observe(byId("stage"));
  showFilters();
  showGrowth();
  refilter();
  if (!graph.nodes.length) return;
  hold = startLayout(graph, ({ places, done }) => {
    view.take(places);
    document.documentElement.dataset.layout = done ? "done" : "moving";
  });
}
explore();
