#include <gtest/gtest.h>

#include <fstream>
#include <set>
#include <thread>

#include <steer/core/error.hpp>
#include <steer/core/hash.hpp>
#include <steer/core/progress.hpp>
#include <steer/core/random.hpp>

#include "support.hpp"

namespace steer {
namespace {

TEST(Error, SaysWhereAndWhat) {
  EXPECT_STEER_ERROR(fail(ErrorCode::shape, "Sae::encode", "expected width {} but got {}", 4, 5), ErrorCode::shape,
                     "[steer::Sae::encode] expected width 4 but got 5");
}

TEST(Error, ParseEnumListsTheNames) {
  EXPECT_EQ(parse_enum<ErrorCode>("shape", "test"), ErrorCode::shape);
  EXPECT_EQ(to_string(ErrorCode::shape), "shape");
  EXPECT_STEER_ERROR(parse_enum<ErrorCode>("shap", "test"), ErrorCode::argument, "one of: io, format, shape");
}

TEST(Hash, EqualsThePublishedDigestOfNothing) {
  // XXH3_128bits of the empty input, from the xxHash specification's test vectors.
  EXPECT_EQ(content_hash(""), "99aa06d3014798d86001c324468d497f");
}

TEST(Hash, DoesNotDependOnHowTheBytesWereCut) {
  std::string text;
  for (int i = 0; i < 5000; ++i) text += static_cast<char>(i * 7);
  ContentHasher hasher;
  hasher.update(std::string_view(text).substr(0, 1))
      .update(std::string_view(text).substr(1, 999))
      .update(std::string_view(text).substr(1000));
  EXPECT_EQ(hasher.hex(), content_hash(text));
  test::TempDir dir;
  std::ofstream(dir / "file", std::ios::binary) << text;
  EXPECT_EQ(content_hash_file(dir / "file"), content_hash(text));
  EXPECT_STEER_ERROR(content_hash_file(dir / "absent"), ErrorCode::io, "absent");
}

TEST(Random, SeedsDifferByLabelAndIndex) {
  std::set<std::uint64_t> seeds;
  for (auto label : {"row", "arm", ""})
    for (std::uint64_t i = 0; i < 100; ++i) seeds.insert(derive_seed(42, label, i));
  EXPECT_EQ(seeds.size(), 300u);
  EXPECT_EQ(derive_seed(1, "a", 2), derive_seed(1, "a", 2));
}

// xoshiro256** from four words of splitmix64, computed by Blackman and Vigna's definitions in Python, which give their
// published outputs too (state 1, 2, 3, 4: 11520, 0, 1509978240 ...; splitmix64 of 1234567: 6457827717110365317 ...).
TEST(Random, NumbersAreThoseOfXoshiro) {
  const std::pair<std::uint64_t, std::vector<std::uint64_t>> published[] = {
      {0,
       {11091344671253066420u, 13793997310169335082u, 1900383378846508768u, 7684712102626143532u,
        13521403990117723737u}},
      {1234567,
       {3504822795582309479u, 1819558768956484042u, 1250851346055027673u, 16940231675099994102u,
        11585879347611423030u}}};
  for (const auto& [seed, numbers] : published) {
    Rng rng(seed);
    for (const std::uint64_t number : numbers) EXPECT_EQ(rng(), number);
  }
}

TEST(Random, MomentsAreThoseOfTheDistribution) {
  Rng rng(7);
  double sum = 0, square = 0, uniform = 0;
  std::vector<int> counts(5);
  constexpr int n = 100000;
  for (int i = 0; i < n; ++i) {
    const double x = rng.normal();
    sum += x;
    square += x * x;
    uniform += rng.uniform();
    ++counts[rng.below(5)];
  }
  EXPECT_NEAR(sum / n, 0, 0.02);
  EXPECT_NEAR(square / n, 1, 0.03);
  EXPECT_NEAR(uniform / n, 0.5, 0.01);
  for (int count : counts) EXPECT_NEAR(count, n / 5, 600);
  EXPECT_STEER_ERROR(rng.below(0), ErrorCode::argument, "at least 1");
}

TEST(Progress, WritesLinesWithRateAndIsSilentByDefault) {
  test::TempDir dir;
  std::FILE* file = std::fopen((dir / "log").c_str(), "w");
  {
    Progress progress("reading", 4, ProgressStyle::lines, file);
    Progress().advance(3);
    progress.resume_at(1);
    std::vector<std::thread> workers;
    for (int i = 0; i < 3; ++i) workers.emplace_back([&] { progress.advance(); });
    for (auto& worker : workers) worker.join();
    progress.note("loss 1.5");
    EXPECT_EQ(progress.done(), 4);
  }
  std::fclose(file);
  const std::string log = test::read_file(dir / "log");
  EXPECT_NE(log.find("reading 4/4 (100%)"), std::string::npos) << log;
  EXPECT_NE(log.find("loss 1.5"), std::string::npos) << log;
}

TEST(Progress, ItsEndIsWrittenOnce) {
  test::TempDir dir;
  const auto written = [&](auto&& work) {
    std::FILE* file = std::fopen((dir / "log").c_str(), "w");
    work(Progress("reading", 1, ProgressStyle::lines, file));
    std::fclose(file);
    const std::string log = test::read_file(dir / "log");
    return std::count(log.begin(), log.end(), '\n');
  };
  EXPECT_EQ(written([](Progress progress) { progress.advance(); }), 1);
  EXPECT_EQ(written([](Progress progress) { progress.advance(), progress.finish(); }), 1);
  EXPECT_EQ(written([](Progress progress) { progress.advance(), progress.note("loss 1.5"); }), 2) << "a later remark";
}

TEST(Progress, ShortPartsOfPartsLeaveNoTrace) {
  test::TempDir dir;
  for (const auto style : {ProgressStyle::lines, ProgressStyle::bar}) {
    std::FILE* file = std::fopen((dir / "log").c_str(), "w");
    {
      const Progress whole("study", 0, style, file);
      Progress part = whole.part("searches", 0).part("answers", 2);
      part.advance(2);
    }
    std::fclose(file);
    const std::string log = test::read_file(dir / "log");
    EXPECT_EQ(std::count(log.begin(), log.end(), '\n'), 0) << log;
    if (style == ProgressStyle::bar) {
      EXPECT_TRUE(log.ends_with("\r\033[K")) << log;
    }
  }
}

TEST(Progress, AStreamThatTakesNothingDoesNotEndTheWork) {
  std::FILE* full = std::fopen("/dev/full", "w");
  if (!full) GTEST_SKIP() << "no /dev/full here";
  std::setvbuf(full, nullptr, _IONBF, 0);
  {
    Progress progress("reading", 2, ProgressStyle::lines, full);
    EXPECT_NO_THROW(progress.advance());
  }
  std::fclose(full);
}

TEST(Progress, RefusesBadArguments) {
  EXPECT_STEER_ERROR(Progress("x", -1), ErrorCode::argument, "-1");
  EXPECT_STEER_ERROR(Progress("x", 1, ProgressStyle::lines, nullptr), ErrorCode::argument, "null");
  Progress progress;
  EXPECT_STEER_ERROR(progress.advance(-2), ErrorCode::argument, "-2");
  EXPECT_STEER_ERROR(progress.resume_at(-2), ErrorCode::argument, "-2");
}

}  // namespace
}  // namespace steer
