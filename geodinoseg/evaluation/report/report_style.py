"""The look of a report: one style sheet, for screens wide and narrow, and for paper."""

STYLE = """
:root { --ink: #1d2730; --faint: #5d6b78; --line: #dfe4e8; --wash: #f5f7f9; --accent: #33658a; }
* { box-sizing: border-box; }
body { margin: 0; color: var(--ink); background: #fff; line-height: 1.5;
  font: 16px/1.5 system-ui, "Segoe UI", "Noto Sans", "DejaVu Sans", sans-serif; }
main { max-width: 68rem; margin: 0 auto; padding: 2.2rem 1.25rem 3rem; }
h1 { font-size: 1.9rem; line-height: 1.2; margin: 0 0 .3rem; overflow-wrap: anywhere; }
h2 { font-size: 1.35rem; margin: 3rem 0 .4rem; padding-top: 1.1rem;
  border-top: 2px solid var(--ink); }
h3 { font-size: 1.05rem; margin: 2rem 0 .5rem; }
p { max-width: 44rem; margin: .4rem 0 .8rem; overflow-wrap: anywhere; }
.lead, .note, figcaption { color: var(--faint); }
.note, figcaption { font-size: .875rem; }
.cards { display: grid; gap: .8rem; margin: 1.4rem 0 .6rem; padding: 0;
  grid-template-columns: repeat(auto-fit, minmax(9rem, 1fr)); }
.card { background: var(--wash); border-radius: .6rem; padding: .8rem 1rem .85rem; }
.card dt { color: var(--faint); font-size: .875rem; }
.card dd { margin: 0; font-size: 1.65rem; font-weight: 650; line-height: 1.25;
  font-variant-numeric: tabular-nums; }
.card dd small { display: block; font-size: .9rem; font-weight: 450; color: var(--faint); }
.figures { display: flex; flex-wrap: wrap; gap: 1.4rem 2rem; align-items: flex-start; }
.figures figure { flex: 1 1 min(19rem, 100%); }
figure { margin: 0; min-width: 0; }
.picture { position: relative; width: 100%; border: 1px solid var(--line); background: #fff; }
.picture img, .picture svg { position: absolute; inset: 0; width: 100%; height: 100%; }
.picture.pale img { opacity: .4; }
figcaption { margin-top: .5rem; }
.key { display: inline-flex; flex-wrap: wrap; gap: .15rem .9rem; }
.key > span { display: inline-flex; align-items: center; overflow-wrap: anywhere; }
.swatch { display: inline-block; flex: none; width: .8em; height: .8em; margin-right: .45em;
  border-radius: .18em; box-shadow: inset 0 0 0 1px rgba(0, 0, 0, .18); }
.named { display: inline-flex; align-items: baseline; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: .925rem; font-variant-numeric: tabular-nums; }
th, td { padding: .38rem .7rem; text-align: left; border-bottom: 1px solid var(--line);
  vertical-align: middle; }
th:first-child, td:first-child { padding-left: .1rem; }
thead th { color: var(--faint); font-weight: 500; font-size: .85rem; vertical-align: bottom; }
tbody th { font-weight: 500; min-width: 7rem; }
.number { text-align: right; white-space: nowrap; }
.both { text-align: center; white-space: nowrap; }
.track { display: inline-block; width: 4.5rem; height: .55rem; margin-right: .55rem;
  background: var(--wash); border-radius: .2rem; overflow: hidden; vertical-align: baseline; }
.track > span { display: block; height: 100%; background: var(--accent); }
.matrix td { text-align: right; min-width: 4.4rem; border: 1px solid #fff; }
.matrix td small { display: block; font-size: .75rem; opacity: .75; }
.matrix thead th { max-width: 8rem; overflow-wrap: anywhere; text-align: right; }
.matrix thead th:first-child { text-align: left; }
.matrix tr > :first-child { position: sticky; left: 0; background: #fff; }
.chart { display: block; height: auto; font-size: 12px; }
.chart text { fill: var(--ink); font-family: inherit; }
.chart .tick, .chart .axis { fill: var(--faint); }
.chart .name { font-size: 13.5px; }
.chart .grid { stroke: var(--line); }
.chart .bar { fill: var(--accent); }
.chart .diagonal { stroke: var(--ink); stroke-dasharray: 4 4; }
.chart .interval { stroke-width: 5; stroke-linecap: round; opacity: .45; }
.chart .estimate { stroke: var(--ink); stroke-width: 1; }
.chart .mapped { stroke: var(--ink); stroke-width: 2; }
.reliability { width: 20rem; max-width: 100%; }
.areas { width: 100%; min-width: 28rem; max-width: 46rem; }
.right { fill: #1b9e4b; } .wrong { fill: #d7301f; }
.beside { display: flex; flex-wrap: wrap; gap: 1rem 2.2rem; align-items: center; }
.beside > div { flex: 1 1 18rem; }
footer { margin-top: 3rem; padding-top: 1rem; border-top: 1px solid var(--line);
  color: var(--faint); font-size: .85rem; }
footer p { max-width: none; }
@media (max-width: 36rem) {
  main { padding: 1.3rem .9rem 2rem; }
  h1 { font-size: 1.5rem; }
  .cards { grid-template-columns: repeat(2, minmax(0, 1fr)); }
  .card dd { font-size: 1.35rem; }
  .track { width: 2.6rem; }
}
@media print {
  main { max-width: none; padding: 0; }
  figure, table, .cards { break-inside: avoid; }
  body { -webkit-print-color-adjust: exact; print-color-adjust: exact; font-size: 13px; }
}
"""
