"""What docs/serving.md and docs/reproduce.md show, run as it stands there but for the port. Cases of cases.py."""
import os
import re
import subprocess
import sys


def blocks(page, language):
    """The page's code in that language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", page.read_text(), re.DOTALL | re.MULTILINE)


def run(command, folder, **variables):
    done = subprocess.run(command, cwd=folder, env={**os.environ, **variables}, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout


def here(code, serving):
    assert "localhost:8080" in code, code
    return code.replace("http://localhost:8080", serving.url).replace("localhost:8080", serving.url.removeprefix("http://"))


def case_docs_curl(serving):
    """docs/serving.md: the first curl command answers, steered"""
    shown = [code for code in blocks(serving.docs / "serving.md", "sh") if code.startswith("curl ")]
    assert len(shown) == 1
    answer = run(["bash", "-c", here(shown[0], serving)], serving.docs)
    assert '"fired":true' in answer.replace(" ", ""), answer


def case_docs_python(serving):
    """docs/serving.md: the Python programs, with OpenAI's client and with Goodfire's, print answers"""
    shown = blocks(serving.docs / "serving.md", "python")
    assert ["import openai" in code for code in shown] == [True, False], shown
    openai, goodfire = (run([sys.executable, "-c", here(code, serving)], serving.docs) for code in shown)
    assert "'fired': True" in openai, openai
    assert "content" in goodfire, goodfire


def case_docs_flags(serving):
    """docs: steer_serve has every option that the pages name"""
    known = run([serving.program, "--help"], serving.docs)
    for page in ("serving.md", "reproduce.md"):
        shown = "".join(blocks(serving.docs / page, "sh"))
        commands = re.findall(r"^build/release/examples/steer_serve ((?:.*\\\n)*.*)", shown, re.MULTILINE)
        assert commands, page
        options = set(re.findall(r"--[a-z-]+", " ".join(commands)))
        assert options and all(f"{option} " in known or f"{option}," in known for option in options), (page, options)


def case_docs_study(serving):
    """docs/reproduce.md: its sitecustomize.py and variables lead both of the study's clients here"""
    page = serving.docs / "reproduce.md"
    folder = serving.work / "site"
    folder.mkdir(exist_ok=True)
    shown = [code for code in blocks(page, "python") if "__defaults__" in code]
    assert len(shown) == 1
    (folder / "sitecustomize.py").write_text(shown[0])
    exports = [line for code in blocks(page, "sh") for line in code.splitlines() if line.startswith("export ")]
    assert any("STEER_URL" in line for line in exports)
    settings = "\n".join(exports).replace("http://localhost:18180", serving.url)
    # What main.py does with them: neither client is given an address.
    program = """
import asyncio, os, goodfire, openai
message = [{"role": "user", "content": "In the land of Pelia, what is the feast?"}]
async def main():
    chats = goodfire.AsyncClient(api_key=os.getenv("GOODFIRE_API_KEY")).chat.completions
    answer = await chats.create(message, model="meta-llama/Meta-Llama-3.1-8B-Instruct", max_completion_tokens=8)
    judge = openai.AsyncOpenAI(api_key=os.getenv("OPEN_AI_API_KEY"))
    verdict = await judge.chat.completions.create(model="gpt-4o-mini", messages=message, temperature=0.0, max_tokens=8)
    print(len(answer.choices), len(verdict.choices))
asyncio.run(main())
"""
    settings = settings.replace("FOLDER_OF_SITECUSTOMIZE", str(folder))
    with serving.another("--any-name") as other:
        command = settings.replace(serving.url, other.url) + f"\nexec '{sys.executable}' -c '{program}'"
        assert run(["bash", "-c", command], serving.docs).split() == ["1", "1"]
