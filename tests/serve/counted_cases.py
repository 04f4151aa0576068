"""Runs the cases of a client's file one after the other, and counts them as all suites do."""
import sys
import traceback


def run_cases(found, *arguments, only=""):
    """Calls every function of `found` named case_... with the arguments; its docstring is what is printed of it.
    Returns how many passed and failed."""
    passed = failed = 0
    for case in [case for name, case in found.items() if name.startswith("case_") and only in name]:
        try:
            case(*arguments)
            passed += 1
            print(f"ok      {case.__doc__}", flush=True)
        except Exception:
            failed += 1
            print(f"FAILED  {case.__doc__}", flush=True)
            traceback.print_exc()
    return passed, failed


def end(passed, failed):
    """Prints the suite's line and ends the program: with 1 where a case failed or none was run."""
    print(f"serve: {passed} cases passed, {failed} failed")
    sys.exit(failed > 0 or passed == 0)
