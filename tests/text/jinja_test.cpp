// The template interpreter: equal to jinja2, bounded, and never losing sight of what a message's text became.

#include <gtest/gtest.h>

#include <fstream>
#include <nlohmann/json.hpp>
#include <thread>

#include "support.hpp"
#include "text/jinja/template.hpp"

namespace steer::text::detail::jinja {
namespace {

using Json = nlohmann::ordered_json;
constexpr std::chrono::sys_seconds moment = std::chrono::sys_days(std::chrono::year(2026) / 7 / 1) +
                                            std::chrono::hours(12) + std::chrono::minutes(34) +
                                            std::chrono::seconds(56);

Variables variables_of(const Json& json) {
  Variables out;
  for (const auto& [name, value] : json.get_ref<const Json::object_t&>()) out.emplace_back(name, from_json(value));
  return out;
}

std::string rendered(std::string_view source, const Json& variables = Json::object(), const Limits& limits = {}) {
  return std::string(Template(source).render(variables_of(variables), moment, limits).bytes());
}

// tests/text/make_jinja_cases.py wrote what jinja2 says.
TEST(Jinja, AgreesWithJinja2) {
  std::ifstream file(std::filesystem::path(STEER_SOURCE_DIR) / "tests/data/text/jinja.jsonl");
  std::string line;
  ASSERT_TRUE(std::getline(file, line));
  const Json variables = Json::parse(line).at("variables");
  const Variables values = variables_of(variables);
  int count = 0, refused = 0;
  for (; std::getline(file, line); ++count) {
    const Json item = Json::parse(line);
    SCOPED_TRACE(line);
    try {
      const std::string text(Template(item.at("template").get<std::string>()).render(values, moment).bytes());
      if (item.contains("text"))
        EXPECT_EQ(text, item["text"].get<std::string>());
      else
        ADD_FAILURE() << "jinja2 raises, steer gives " << text;
    } catch (const Error& error) {
      if (!item.contains("text")) continue;
      // What steer has not it must say so; never a wrong text.
      EXPECT_EQ(error.code(), ErrorCode::unsupported) << error.what();
      ++refused;
    }
  }
  EXPECT_GT(count, 6000);
  EXPECT_LT(refused, count / 100);
}

TEST(Jinja, RefusesByName) {
  EXPECT_STEER_ERROR(Template("a\n{% include 'x' %}"), ErrorCode::unsupported, "line 2: the tag {% include %}");
  EXPECT_STEER_ERROR(Template("{{ x | urlize }}"), ErrorCode::unsupported, "urlize");
  EXPECT_STEER_ERROR(rendered("{{ x.casefold() }}", {{"x", "a"}}), ErrorCode::unsupported, "str.casefold");
  EXPECT_STEER_ERROR(Template("{{ x | nobody_knows }}"), ErrorCode::format, "nobody_knows");
  EXPECT_STEER_ERROR(Template("{% if x %}"), ErrorCode::format, "endif");
  EXPECT_STEER_ERROR(rendered("{{ 2 ** 64 }}"), ErrorCode::unsupported, "64 bits");
  EXPECT_STEER_ERROR(rendered("\n\n{{ raise_exception('not so') }}"), ErrorCode::argument, "not so (line 3");
  EXPECT_STEER_ERROR(rendered("{{ messages[0].role.upper() }}", {{"messages", Json::array()}}), ErrorCode::argument,
                     "has no element 0");
}

// Every way to run on for ever, to fill the memory or to overflow the stack ends in an error.
TEST(Jinja, IsBounded) {
  const auto nested = [](std::string_view open, std::string_view middle, std::string_view close, int times) {
    std::string out;
    for (int i = 0; i < times; ++i) out += open;
    out += middle;
    for (int i = 0; i < times; ++i) out += close;
    return out;
  };
  const auto repeated = [](std::string_view part, int times) {
    std::string out;
    for (int i = 0; i < times; ++i) out += part;
    return out;
  };
  const std::pair<std::string, std::string> hostile[] = {
      {"{{ range(10 ** 9) }}", "Range too big"},
      {"{{ 'x' * 10 ** 12 }}", "16 MiB"},
      {"{{ [1] * 10 ** 12 }}", "16 million"},
      {"{% set ns = namespace(s='xxxxxxxx') %}{% for i in range(99999) %}{% set ns.s = ns.s + ns.s %}{% endfor %}",
       "MiB"},
      {"{% set ns = namespace(l=[1]) %}{% for i in range(99999) %}{% set ns.l = ns.l + ns.l %}{% endfor %}",
       "more than"},
      {"{% set ns = namespace(l=[]) %}{% for i in range(99999) %}{% set ns.l = [ns.l] %}{% endfor %}", "nested deeper"},
      {"{% set ns = namespace(l=[1]) %}{% for i in range(90) %}{% set ns.l = [ns.l, ns.l] %}{% endfor %}{{ ns.l }}",
       "more than"},
      {"{% set ns = namespace(l=[1]) %}{% for i in range(90) %}{% set ns.l = [ns.l, ns.l] %}{% endfor %}{% set a = "
       "ns.l %}{% set ns.l = [1] %}{% for i in range(90) %}{% set ns.l = [ns.l, ns.l] %}{% endfor %}{{ a == ns.l }}",
       "more than"},
      {"{% set ns = namespace(l=[1]) %}{% for i in range(90) %}{% set ns.l = [ns.l, ns.l] %}{% endfor %}{{ ns.l|tojson "
       "}}",
       "more than"},
      {"{% set ns = namespace() %}{% set ns.x = ns %}{{ ns }}", "nested deeper"},
      {"{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "nested deeper"},
      {"{% macro f() %}{{ f() }}{{ f() }}{% endmacro %}{% macro g(n) %}{% if n %}{{ g(n - 1) }}{{ g(n - 1) }}{% endif "
       "%}{% endmacro %}{{ g(60) }}",
       "more than"},
      {"{% for a in range(9999) %}{% for b in range(9999) %}{% for c in range(9999) %}{% endfor %}{% endfor %}{% "
       "endfor %}",
       "more than"},
      {"{% for a in range(99999) %}{% for b in range(99999) %}xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx{% endfor %}{% endfor "
       "%}",
       "more than"},
      {"{% for x in [[1]] recursive %}{{ loop([x]) }}{% endfor %}", "nested deeper"},
      {"{{ 'a'.ljust(10 ** 15) }}", "16 MiB"},
      {"{{ 'a'|center(10 ** 15) }}", "16 MiB"},
      {"{{ '%999999999d' % 1 }}", "width"},
      {"{{ '{:999999999}'.format('a') }}", "width"},
      {"{{ [1]|batch(10 ** 12, 0)|list }}", "MiB"},
      {"{{ 'ab'|tojson(indent=10 ** 9) }}", "indent"},
      {"{{ range(99999)|slice(10 ** 12)|list }}", "more than"},
      {"{{ (('a' * 9999999) ~ 'b').rfind('a' * 999999 ~ 'c') }}", "steps"},
      {"{{ ('a' * 9999999).replace('a', 'b' * 9999999) }}", "16 MiB"},
      {"{{ ('a' * 9999999).replace('', 'bb') }}", "16 MiB"},
      {nested("{{ ", nested("(", "1", ")", 5000), " }}", 1), "nested deeper"},
      {nested("{{ ", nested("[", "1", "]", 5000), " }}", 1), "nested deeper"},
      {nested("{{ ", nested("not ", "1", "", 5000), " }}", 1), "nested deeper"},
      {nested("{{ ", nested("- ", "1", "", 5000), " }}", 1), "nested deeper"},
      {nested("{{ ", nested("1 if ", "1", "", 5000), " }}", 1), "operators"},
      {"{{ 1" + repeated(" + 1", 100000) + " }}", "operators"},
      {"{{ x" + repeated(".a", 100000) + " }}", "operators"},
      {"{{ x" + repeated("|e", 100000) + " }}", "operators"},
      {nested("{% if 1 %}", "x", "{% endif %}", 5000), "nested deeper"},
      {nested("{% for x in [1] %}", "x", "{% endfor %}", 5000), "nested deeper"},
      {"{% set " + nested("(", "a", ")", 5000) + " = 1 %}", "nested deeper"},
  };
  for (const auto& [source, words] : hostile) {
    SCOPED_TRACE(source.substr(0, 120));
    std::string refusal;
    try {
      rendered(source, {{"x", 1}});
    } catch (const Error& error) {
      refusal = error.what();
    }
    EXPECT_NE(refusal.find(words), std::string::npos) << words << " not in: " << refusal;
    EXPECT_FALSE(refusal.empty());
  }
  EXPECT_STEER_ERROR(Template(std::string(std::size_t{5} << 20, 'a')), ErrorCode::unsupported, "4 MiB");
  EXPECT_EQ(rendered("{% macro f(n) %}{{ f(n - 1) if n }}x{% endmacro %}{{ f(100) }}"), std::string(101, 'x'));
  EXPECT_EQ(rendered(repeated("{% if 1 %}x{% endif %}", 20000)), std::string(20000, 'x'));
}

// ---- marks
Value marked(std::string_view text, std::int32_t source) {
  return Value(std::make_shared<const String>(String{MarkedText(text, source), false}));
}
// The bytes of each message in a result, in order.
std::string bytes_of(const MarkedText& text, std::int32_t source) {
  std::string out;
  for (const Mark& mark : text.marks())
    if (mark.source == source) out += text.bytes().substr(mark.begin, mark.end - mark.begin);
  return out;
}

// Whatever is done to a message's text, its bytes stay marked, and nothing else is.
TEST(Jinja, MarksFollowTheText) {
  const std::pair<std::string, std::string> cases[] = {
      {"[{{ x }}]", "Ab c"},
      {"[{{ x ~ '-' ~ x }}]", "Ab cAb c"},
      {"{{ 'a' + x + 'b' }}", "Ab c"},
      {"{{ x | trim | upper }}", "AB C"},
      {"{{ x.lower().title() }}", "Ab C"},
      {"{{ x[1:] }}{{ x[::-1] }}{{ x[0] }}", "b cc bAA"},
      {"{{ x.split(' ') | join('<>') }}", "Abc"},
      {"{{ x.replace('b', 'zz') }}", "A c"},
      {"{{ 'q-q'.replace('-', x) }}", "Ab c"},
      {"{{ x | tojson }}", "Ab c"},
      {"{{ [x] }}{{ {'k': x} }}", "Ab cAb c"},
      {"{{ '%s|%5s' % (x, 'q') }}", "Ab c"},
      {"{{ '{}{:>8}'.format(x, x) }}", "Ab cAb c"},
      {"{{ x * 2 }}", "Ab cAb c"},
      {"{{ x.center(10, '*') }}{{ x | indent(2, true) }}", "Ab cAb c"},
      {"{% set y %}<{{ x }}>{% endset %}{{ y | upper }}", "AB C"},
      {"{% macro m(v) %}<{{ v }}{{ caller() }}>{% endmacro %}{% call m(x) %}{{ x }}{% endcall %}", "Ab cAb c"},
      {"{% filter upper %}<{{ x }}>{% endfilter %}", "AB C"},
      {"{% for c in x %}{{ c }},{% endfor %}", "Ab c"},
      {"{{ x | list | reverse | join }}{{ x | first }}{{ x | last }}", "c bAAc"},
      {"{{ x | e }}{{ x | safe }}{{ x | string }}", "Ab cAb cAb c"},
      {"{{ [x] | map('replace', 'A', 'B') | first }}", "b c"},
      {"{% set ns = namespace(v=x) %}{% set ns.v = ns.v + '!' %}{{ ns.v }}", "Ab c"},
      {"{{ x | length }}{{ x == 'Ab c' }}{{ 'b' in x }}{{ x.find('b') }}", ""},
  };
  for (const auto& [source, expected] : cases) {
    const MarkedText out = Template(source).render({{"x", marked("Ab c", 3)}}, moment);
    EXPECT_EQ(bytes_of(out, 3), expected) << source << " gives " << out.bytes();
    for (const Mark& mark : out.marks()) EXPECT_LE(mark.end, out.size());
  }
  const MarkedText two = Template("{{ a ~ b ~ a }}").render({{"a", marked("x", 0)}, {"b", marked("y", 1)}}, moment);
  ASSERT_EQ(two.marks().size(), 3u);
  EXPECT_EQ(bytes_of(two, 0), "xx");
  EXPECT_EQ(bytes_of(two, 1), "y");
}

TEST(Jinja, MayBeSharedByThreads) {
  const Template shared(
      "{% set ns = namespace(n=0) %}{% for i in range(200) %}{% set ns.n = ns.n + i %}{% endfor %}{{ ns.n ~ x }}");
  std::vector<std::thread> threads;
  std::vector<std::string> results(4);
  for (std::size_t t = 0; t < results.size(); ++t)
    threads.emplace_back([&, t] {
      for (int i = 0; i < 50; ++i)
        results[t] = shared.render({{"x", Value(static_cast<std::int64_t>(t))}}, moment).bytes();
    });
  for (auto& thread : threads) thread.join();
  for (std::size_t t = 0; t < results.size(); ++t) EXPECT_EQ(results[t], "19900" + std::to_string(t));
}

// Slices and methods walk texts by the lengths that lead bytes promise: a text that breaks the promise was read past
// its end.
TEST(Jinja, RefusesATemplateThatIsNotUtf8) {
  for (const std::string_view source : {"{{ 'ab\xEE\xEE'[2:] }}", "\xFF", "text \xED\xA0\x80", "{# \xE2\x82"})
    EXPECT_STEER_ERROR(Template{source}, ErrorCode::format, "in UTF-8 but byte ");
}

TEST(Jinja, MakesTextsOfOthersValid) {
  const std::string broken = std::string(40, '\xEE') + "a";  // Python: bytes.decode("utf-8", "replace")
  std::string valid;
  for (int i = 0; i < 40; ++i) valid += "\xEF\xBF\xBD";
  EXPECT_EQ(Template("{{ x[2:] }}|{{ x[-1] }}|{{ x | length }}|{{ x.lstrip('b')[::-1][0] }}")
                .render({{"x", Value::text(broken)}}, moment)
                .bytes(),
            valid.substr(6) + "a|a|41|a");
}

TEST(Jinja, FormatsTime) {
  // datetime(2021, 1, 3).strftime: a Sunday of the last ISO week of 2020.
  const auto sunday = std::chrono::sys_days(std::chrono::year(2021) / 1 / 3);
  EXPECT_EQ(Template("{{ strftime_now('%G-W%V %U %W %j %a %I%p') }}").render({}, sunday).bytes(),
            "2020-W53 01 00 003 Sun 12AM");
}

}  // namespace
}  // namespace steer::text::detail::jinja
