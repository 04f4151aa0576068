// Models that several processes compute together. Here the processes are threads, which exchange tensors in memory or
// over the loopback; tests/together.py runs the golden models in real ones.
#include <ATen/TensorOperators.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/full.h>
#include <ATen/ops/randint.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/stack.h>
#include <gtest/gtest.h>

#include <barrier>
#include <thread>

#include <steer/model/compare.hpp>

#include "model/kernels/linear.hpp"
#include "model/tiny_models.hpp"
#include "support.hpp"

namespace steer {
namespace {

using model::detail::Linear;
using test::some_ids;

/// Where threads stand in for processes.
struct Room {
  explicit Room(std::int64_t size) : tensors(static_cast<std::size_t>(size)), meet(size) {}
  std::vector<at::Tensor> tensors;
  std::barrier<> meet;
};

class InRoom : public Communicator {
 public:
  InRoom(Room& room, std::int64_t rank) : room_(room), rank_(rank) {}
  std::int64_t rank() const override { return rank_; }
  std::int64_t size() const override { return std::ssize(room_.tensors); }
  at::Tensor all_gather(const at::Tensor& mine) override {
    room_.tensors[static_cast<std::size_t>(rank_)] = mine;
    room_.meet.arrive_and_wait();
    const at::Tensor all = at::stack(room_.tensors);
    room_.meet.arrive_and_wait();
    return all;
  }

 private:
  Room& room_;
  std::int64_t rank_;
};

/// f(communicator) in `size` threads; what each throws, "" where nothing. Who throws makes no one wait.
template <class F>
std::vector<std::string> together(std::int64_t size, const F& f) {
  Room room(size);
  std::vector<std::string> errors(static_cast<std::size_t>(size));
  std::vector<std::thread> threads;
  for (std::int64_t rank = 0; rank < size; ++rank)
    threads.emplace_back([&, rank] {
      try {
        f(std::make_shared<InRoom>(room, rank));
      } catch (const std::exception& error) {
        errors[static_cast<std::size_t>(rank)] = error.what();
      }
      room.meet.arrive_and_drop();
    });
  for (auto& thread : threads) thread.join();
  return errors;
}

using Peers = std::shared_ptr<Communicator>;

TEST(Parallel, EveryPointOfEveryFamilyIsThatOfOneProcess) {
  int uneven = 0;
  for (const auto* family : test::kFamilies) {
    const test::TinyModel tiny = test::tiny_model(family);
    const std::int64_t heads = tiny.load().config().n_kv_heads;
    for (const std::int64_t processes : {2, 3}) {
      if (processes == 3 && heads < 3) continue;
      uneven += heads % processes != 0;
      const auto errors = together(processes, [&](const Peers& peers) {
        Session whole(tiny.load()), parts(tiny.load({.parallel = peers}));
        const auto result = compare_backends(parts, whole, some_ids(40), {.decoded = 2});
        for (const auto& p : result.points) EXPECT_LE(p.relative(), 2e-5) << family << " " << p.name;
      });
      for (const auto& error : errors) EXPECT_EQ(error, "") << family << " in " << processes;
    }
  }
  EXPECT_GT(uneven, 0) << "no family whose heads 3 processes share unevenly";
}

TEST(Parallel, BitsAreTheSameInEachProcessAndInAnyBatch) {
  const test::TinyModel tiny = test::tiny_model("gpt2");
  std::vector<at::Tensor> logits(3);  // of two, a sum has the same bits in any order
  const auto errors = together(3, [&](const Peers& peers) {
    Session session(tiny.load({.parallel = peers}));
    const auto ids = some_ids(9), others = some_ids(30, 1);
    const at::Tensor alone = session.forward(ids);
    const SequenceId a = session.open(), b = session.open();
    const std::vector<StepInput> both{{b, others}, {a, ids}};
    const at::Tensor batch = session.step(both, Logits::all).narrow(0, std::ssize(others), std::ssize(ids));
    EXPECT_TRUE(at::equal(alone, batch)) << "rank " << peers->rank();
    logits[static_cast<std::size_t>(peers->rank())] = alone;
  });
  for (const auto& error : errors) EXPECT_EQ(error, "");
  for (std::size_t rank = 1; rank < errors.size(); ++rank) EXPECT_TRUE(at::equal(logits[rank], logits[0])) << rank;
}

TEST(Parallel, EditsOfDividedSitesAreWhole) {
  const test::TinyModel tiny = test::tiny_model("llama");
  for (const char* point : {"blocks.1.attn.hook_q", "blocks.1.attn.hook_v", "blocks.0.attn.hook_pattern",
                            "blocks.1.attn.hook_z", "blocks.0.mlp.hook_pre", "blocks.2.mlp.hook_post"}) {
    const auto edited = [&](const LoadOptions& options) {
      Session session(tiny.load(options));
      const at::Tensor plain = session.forward(some_ids(12));
      // Scales with the place along each dimension: a part taken for the whole, or for another part, shows.
      const auto off = session.hook(point, [](HookContext& at) {
        for (std::int64_t i = 0; i < at.value.size(0); ++i) at.value[i].mul_(1 + 0.1 * static_cast<double>(i % 3));
        const std::int64_t half = at.value.size(1) / 2;
        at.value.narrow(1, 0, half).mul_(0.5);
      });
      const at::Tensor out = session.forward(some_ids(12));
      EXPECT_FALSE(at::equal(out, plain)) << point;
      return out;
    };
    const at::Tensor expected = edited({});
    const auto errors = together(2, [&](const Peers& peers) {
      EXPECT_LE((edited({.parallel = peers}) - expected).abs().max().item<double>(), 1e-5) << point;
    });
    for (const auto& error : errors) EXPECT_EQ(error, "") << point;
  }
}

TEST(Parallel, EachKeepsAPart) {
  const test::TinyModel tiny = test::tiny_model("llama");
  const Model whole = tiny.load();
  const auto errors = together(2, [&](const Peers& peers) {
    const Model part = tiny.load({.parallel = peers});
    EXPECT_EQ(part.processes(), 2);
    EXPECT_EQ(part.config().n_heads, whole.config().n_heads) << "the configuration is the model's";
    EXPECT_LT(part.weight_bytes(), whole.weight_bytes());
    EXPECT_EQ(part.hash(), whole.hash() + "-processes-2");
  });
  for (const auto& error : errors) EXPECT_EQ(error, "");
  EXPECT_EQ(whole.processes(), 1);
}

TEST(Parallel, OtherCallsInAnotherProcessAreAnError) {
  const test::TinyModel tiny = test::tiny_model("llama");
  const auto tokens = together(
      2, [&](const Peers& peers) { Session(tiny.load({.parallel = peers})).forward(some_ids(5, peers->rank())); });
  for (const auto& error : tokens)
    EXPECT_NE(error.find("expected all processes to compute the same"), error.npos) << error;
  const auto hooks = together(2, [&](const Peers& peers) {
    Session session(tiny.load({.parallel = peers}));
    HookHandle hook;
    if (peers->rank() == 1) hook = session.hook("blocks.0.attn.hook_z", [](HookContext&) {});
    session.forward(some_ids(5));
  });
  for (const auto& error : hooks) EXPECT_NE(error.find("with 1 hooked points"), error.npos) << error;
  const auto gradients = together(2, [&](const Peers& peers) {
    Session session(tiny.load({.parallel = peers}));
    const auto hook = session.hook("blocks.0.hook_resid_post",
                                   [](HookContext& at) { at.value = at.value.clone().set_requires_grad(true); });
    session.forward(some_ids(5));
  });
  for (const auto& error : gradients) EXPECT_NE(error.find("without gradients"), error.npos) << error;
}

TEST(Parallel, TooManyProcessesAreRefused) {
  const test::TinyModel tiny = test::tiny_model("llama");
  const auto errors =
      together(tiny.load().config().n_heads + 1, [&](const Peers& peers) { (void)tiny.load({.parallel = peers}); });
  for (const auto& error : errors) EXPECT_NE(error.find("key and value heads"), error.npos) << error;
}

TEST(Parallel, WeightsArePartedInEveryFormat) {
  const auto same_bits = [](const at::Tensor& a, const at::Tensor& b) {
    return at::equal(a.contiguous().view(at::kInt), b.contiguous().view(at::kInt));
  };
  struct Block {
    const char* name;
    std::int64_t values, bytes;
  };
  constexpr std::int64_t kOut = 6, kIn = 1024;
  std::vector<std::pair<std::string, Linear>> weights;
  const at::Tensor dense = at::randn({kOut, kIn}), bias = at::randn({kOut});
  weights.emplace_back("f32", Linear::dense(dense, bias));
  weights.emplace_back("bf16", Linear::dense(dense.to(at::kBFloat16), bias));
  weights.emplace_back("f16", Linear::dense(dense.to(at::kHalf), bias));
  weights.emplace_back("int8", Linear::int8(dense, bias));
  for (const auto& [name, values, bytes] : {Block{"Q4_0", 32, 18}, Block{"Q5_1", 32, 24}, Block{"Q8_0", 32, 34},
                                            Block{"Q4_K", 256, 144}, Block{"Q6_K", 256, 210}, Block{"MXFP4", 32, 17}})
    weights.emplace_back(
        name, Linear::blocks(at::randint(0, 256, {kOut * kIn / values * bytes}, at::kByte), name, kOut, kIn, bias));
  for (const auto& [name, weight] : weights) {
    const at::Tensor all = weight.to_f32();
    const Linear rows = weight.rows(1, 4);
    EXPECT_EQ(rows.type(), weight.type()) << name;
    EXPECT_TRUE(same_bits(rows.to_f32(), all.narrow(0, 1, 3))) << name;
    EXPECT_TRUE(at::equal(rows.bias(), bias.narrow(0, 1, 3))) << name;
    EXPECT_EQ(rows.bytes() - 12, (weight.bytes() - 24) / 2) << name;
    const Linear columns = weight.columns(256, 768, /*with_bias=*/false);
    EXPECT_EQ(columns.type(), weight.type()) << name;
    EXPECT_TRUE(same_bits(columns.to_f32(), all.narrow(1, 256, 512))) << name;
    EXPECT_FALSE(columns.bias().defined()) << name;
    const Linear cut = weight.columns(16, 528, /*with_bias=*/true);  // through blocks
    EXPECT_TRUE(same_bits(cut.to_f32(), all.narrow(1, 16, 512))) << name;
    EXPECT_TRUE(at::equal(cut.bias(), bias)) << name;
  }
}

/// Two processes' worth of `connect`, in threads.
template <class F>
std::vector<std::string> connected(double timeout_s, const F& f) {
  static std::uint16_t port = static_cast<std::uint16_t>(20000 + getpid() % 20000);
  ++port;
  std::vector<std::string> errors(2);
  std::vector<std::thread> threads;
  for (std::int64_t rank = 0; rank < 2; ++rank)
    threads.emplace_back([&, rank] {
      try {
        f(*connect({.rank = rank, .count = 2, .address = "127.0.0.1", .port = port, .timeout_s = timeout_s}));
      } catch (const std::exception& error) {
        errors[static_cast<std::size_t>(rank)] = error.what();
      }
    });
  for (auto& thread : threads) thread.join();
  return errors;
}

TEST(Connect, GathersTensorsOfAnySize) {
  const auto errors = connected(30, [](Communicator& all) {
    for (const std::int64_t size : {1, 0, 7, 1 << 21, 3}) {
      const at::Tensor got = all.all_gather(at::full({2, size}, static_cast<double>(10 * all.rank() + size)));
      EXPECT_EQ(got.sizes().vec(), (std::vector<std::int64_t>{2, 2, size}));
      for (std::int64_t r = 0; r < 2; ++r)
        EXPECT_TRUE(at::equal(got[r], at::full({2, size}, static_cast<double>(10 * r + size)))) << size;
    }
    const at::Tensor whole = all.all_gather(at::full({3}, (std::int64_t{1} << 53) + 1 + all.rank(), at::kLong));
    EXPECT_EQ(whole[1][2].item<std::int64_t>(), (std::int64_t{1} << 53) + 2);
  });
  EXPECT_EQ(errors, std::vector<std::string>(2));
}

TEST(Connect, OtherSizesAndSilentProcessesAreErrors) {
  const auto sizes = connected(30, [](Communicator& all) { all.all_gather(at::full({1 + all.rank()}, 1.0)); });
  for (const auto& error : sizes) EXPECT_NE(error.find("all processes make the same calls"), error.npos) << error;
  const auto silent = connected(1, [](Communicator& all) {
    all.all_gather(at::full({1}, 1.0));
    if (all.rank() == 0) all.all_gather(at::full({1}, 1.0));
  });
  EXPECT_NE(silent[0].find("expected rank 1 to answer within 1 s in exchange 1"), std::string::npos) << silent[0];
  EXPECT_STEER_ERROR((void)connect({.rank = 2, .count = 2, .address = "127.0.0.1", .port = 1}), ErrorCode::argument,
                     "rank in [0, 2)");
}

}  // namespace
}  // namespace steer
