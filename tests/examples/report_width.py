"""The report on a screen of 1,200 pixels: report_width.py REANALYSE RESULTS.csv.gz

Its table of arms needs no sideways scrolling. Exits with 77 where there is no Chromium.
"""
import gzip
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

MEASURE = """<script>document.title = "measured " + [...document.querySelectorAll("table")].filter(table =>
  table.rows[0].cells[0].innerText == "arm" && table.scrollWidth > table.parentElement.clientWidth).length + " of " +
  [...document.querySelectorAll("table")].filter(table => table.rows[0].cells[0].innerText == "arm").length +
  " sideways " + (document.documentElement.scrollWidth > innerWidth)</script>"""

browser = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
if not browser:
    print("no Chromium here")
    sys.exit(77)
program, results = sys.argv[1:]
with tempfile.TemporaryDirectory() as made:
    folder = pathlib.Path(made)
    (folder / "results.csv").write_bytes(gzip.decompress(pathlib.Path(results).read_bytes()))
    subprocess.run([program, folder / "results.csv", "--out", folder / "report.html"], check=True, stdout=subprocess.DEVNULL)
    page = folder / "page.html"
    page.write_text((folder / "report.html").read_text() + MEASURE)
    dom = subprocess.run([browser, "--headless=new", "--no-sandbox", "--disable-gpu", "--no-proxy-server", "--window-size=1200,900",
                          f"--user-data-dir={folder}/profile", "--dump-dom", page.as_uri()], capture_output=True, text=True,
                         timeout=120).stdout
wide, arms, sideways = re.search(r"measured (\d+) of (\d+) sideways (\w+)", dom).groups()
print(f"{wide} of {arms} tables of arms are wider than its card; the page scrolls sideways: {sideways}")
sys.exit(arms == "0" or wide != "0" or sideways == "true")
