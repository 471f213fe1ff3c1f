// Charts, and a word when live updates fail.  Everything else is links, forms and htmx attributes.
(function () {
  "use strict";

  function color(name) {
    return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  }

  function compact(number) {
    return number === null ? "" : new Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: 2 }).format(number);
  }

  function moment(seconds, step) {
    var text = new Date(seconds * 1000).toISOString();
    return step >= 86400 ? text.slice(5, 10) : text.slice(11, step < 60 ? 19 : 16);
  }

  function options(chart, width) {
    var steps = chart.kind === "steps";
    var axis = { stroke: color("--dim"), grid: { stroke: color("--line"), width: 1 }, ticks: { stroke: color("--line"), width: 1 } };
    var bars = uPlot.paths.bars({ size: [steps ? 0.7 : 0.9, 100], align: steps ? 0 : 1 });
    var x = Object.assign({}, axis);
    if (!steps) {
      x.values = function (u, splits) { return splits.map(function (s) { return moment(s, chart.step); }); };
    } else {
      x.splits = function () { return chart.x; };
      x.values = function () { return chart.labels; };
      x.rotate = -45;
      x.size = 56;
    }
    return {
      width: width, height: 220, tzDate: function (s) { return uPlot.tzDate(new Date(s * 1000), "UTC"); },
      cursor: { drag: { x: false, y: false } }, legend: { live: true },
      scales: { x: { time: !steps, range: steps ? [-0.6, chart.x.length - 0.4] : [chart.x[0] - chart.step / 2, chart.x[chart.x.length - 1] + chart.step * 1.5] }, y: { range: { min: { pad: 0, soft: 0, mode: 1 }, max: { pad: 0.1, soft: 0, mode: 2 } } } },
      axes: [x, Object.assign({ size: 56, values: function (u, splits) { return splits.map(compact); } }, axis)],
      series: [
        { label: steps ? "duration" : "time", value: steps ? function (u, v) { return v === null ? "" : chart.labels[v] || ""; } : "{YYYY}-{MM}-{DD} {HH}:{mm}" },
        { label: chart.label, stroke: color("--accent"), fill: color("--bar"), paths: bars, points: { show: false } }
      ]
    };
  }

  var drawn = [];

  function draw() {
    drawn = drawn.filter(function (one) {
      if (one.place.isConnected) { return true; }
      one.plot.destroy();
      return false;
    });
    document.querySelectorAll(".chart[data-chart]").forEach(function (place) {
      if (place.firstChild) { return; }
      var chart = JSON.parse(place.dataset.chart);
      drawn.push({ place: place, plot: new uPlot(options(chart, place.clientWidth), [chart.x, chart.y], place) });
    });
  }

  function redraw() {
    drawn.forEach(function (one) { one.plot.destroy(); });
    drawn = [];
    draw();
  }

  function trouble(text) {
    document.getElementById("trouble").textContent = text;
  }

  document.addEventListener("DOMContentLoaded", draw);
  document.addEventListener("htmx:afterSettle", draw);
  // Nobody looks: the page catches up when somebody does.
  document.addEventListener("htmx:beforeRequest", function (event) { if (document.hidden) { event.preventDefault(); } });
  document.addEventListener("htmx:sendError", function () { trouble("The server does not answer; what is shown may be old."); });
  document.addEventListener("htmx:responseError", function (event) { trouble("The server answers " + event.detail.xhr.status + "; what is shown may be old."); });
  document.addEventListener("htmx:afterOnLoad", function () { trouble(""); });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
  var waiting;
  addEventListener("resize", function () { clearTimeout(waiting); waiting = setTimeout(redraw, 150); });
})();
