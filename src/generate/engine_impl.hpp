#pragma once
// What an engine is made of. Its functions are in engine.cpp (its face, and what other threads bring), engine_step.cpp
// (who is computed, and who waits) and engine_rows.cpp (what becomes of a row's logits).

#include <atomic>
#include <condition_variable>
#include <list>
#include <mutex>
#include <unordered_map>
#include <unordered_set>
#include <utility>
#include <vector>

#include <steer/generate/engine.hpp>

#include "generate/engine_row.hpp"
#include "generate/observers.hpp"
#include "generate/prefix_store.hpp"

namespace steer {

struct Engine::Impl {
  using Row = generation::detail::EngineRow;
  using Order = generation::detail::Order;
  using Rows = std::list<Row>;
  using OnEvent = EngineEventFunction;

  Impl(std::unique_ptr<Session> owned, Session& session, const EngineOptions& options);
  ~Impl();
  Impl(const Impl&) = delete;
  Impl& operator=(const Impl&) = delete;

  // Any thread.
  RowId submit(EngineRequest request);
  void check(const EngineRequest& request) const;
  std::shared_ptr<Order> order_of(EngineRequest request);
  bool cancel(RowId id, std::string reason);
  void cancel_all(const std::string& reason);

  // The thread that drives.
  bool step(const OnEvent& on_event);
  void receive();
  void receive_cancellations();
  void publish();

  void admit();
  bool waits_for_prefix(const Row& row);
  bool has_room();
  void open(Row& row);
  void shut(Row& row);
  void keep_audit(Row& row);
  Rows::iterator wait_again(Rows::iterator row);
  std::vector<Row*> choose();
  std::int64_t next_tokens(const Row& row, std::int64_t& prompt_room, std::int64_t& logit_room) const;
  bool make_room(Row& row, std::int64_t tokens, std::int64_t taken);

  void compute(const std::vector<Row*>& chosen);
  at::Tensor pass(std::span<Row* const> chosen);
  void read(std::span<Row* const> chosen, const at::Tensor& logits);
  void fork_samples(const Row& row, std::vector<Row*>& forked);
  void deliver(const OnEvent& on_event);
  void deliver(Row& row, const OnEvent& on_event);
  void take(Row& row, generation::detail::Draw draw, const OnEvent& on_event);
  void end(Row& row, const OnEvent& on_event);
  void hand_over(Row& row);
  void tell(Row& row, const EngineEvent& event, const OnEvent& on_event);

  std::int64_t free_bytes() const;
  static void insert(Rows& into, Rows& from, Rows::iterator row);

  std::unique_ptr<Session> owned;
  Session* session;
  const Model& model;
  const EngineOptions options;
  const std::int64_t max_cache_bytes;
  std::int64_t first_bytes = 0, block_bytes = 0;  ///< of an empty sequence's first token, and of each block after it
  const bool recurrent;                           ///< layers that keep a state, which cannot go back
  generation::detail::PrefixStore prefixes;
  generation::detail::Observers observers;
  Rows waiting, active;  ///< both by priority, then by id
  std::unordered_map<RowId, Rows::iterator> places;
  std::vector<std::int64_t> tokens;  ///< of each chosen row, in this step
  Load done;                         ///< the driver's own counts

  /// What other threads bring, and are told.
  struct Inbox {
    mutable std::mutex mutex;
    mutable std::condition_variable arrived;
    Rows submitted;
    std::vector<std::pair<RowId, std::string>> cancelled;
    std::unordered_set<RowId> alive;  ///< submitted, and no last event yet
    RowId next = 0;
    Load load;  ///< as of the last step's end
    std::atomic<bool> cancels = false;
    bool closed = false;
  } inbox;
};

}  // namespace steer
