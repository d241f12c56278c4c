// Random histories against rules that know nothing of how retention decides. BITCTL_HISTORIES says how many
// (scripts/soak: a million).
#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>
#include <functional>
#include <map>
#include <random>

#include "checkpoint/retention.h"

namespace bitctl {
namespace {

using Entries = std::vector<RetentionEntry>;
using Steps = std::vector<uint64_t>;
using Planner = std::function<Steps(const Entries&, const RetentionPolicy&)>;

struct Case {
  Entries entries;
  RetentionPolicy policy;
  Steps deleted;

  bool gone(const RetentionEntry& e) const {
    return std::find(deleted.begin(), deleted.end(), e.step) != deleted.end();
  }
  bool none_gone(const std::function<bool(const RetentionEntry&)>& such) const {
    return std::none_of(entries.begin(), entries.end(), [&](const auto& e) { return such(e) && gone(e); });
  }
  size_t count(const std::function<bool(const RetentionEntry&)>& such) const {
    return static_cast<size_t>(std::count_if(entries.begin(), entries.end(), such));
  }
  bool among_last(const RetentionEntry& e) const {
    return count([&](const auto& x) { return x.valid && x.step > e.step; }) <
           static_cast<size_t>(std::max(1, policy.keep_last));
  }
  static bool can_be_best(const RetentionEntry& e) {
    return e.valid && !e.non_finite && e.metric && std::isfinite(*e.metric);
  }
  bool among_best(const RetentionEntry& e) const {
    if (!policy.keep_best || !can_be_best(e)) return false;
    const auto beats = [&](const RetentionEntry& x) {
      if (!can_be_best(x)) return false;
      if (*x.metric == *e.metric) return x.step > e.step;
      return (*x.metric < *e.metric) == policy.keep_best->smallest;
    };
    return count(beats) < static_cast<size_t>(policy.keep_best->count);
  }
  bool is_kth(const RetentionEntry& e) const {
    return policy.keep_every > 0 && e.step % policy.keep_every == 0;
  }
  bool newest(const RetentionEntry& e, const std::function<bool(const RetentionEntry&)>& such) const {
    return e.valid && such(e) &&
           count([&](const auto& x) { return x.valid && such(x) && x.step > e.step; }) == 0;
  }
};

bool is_verified(const RetentionEntry& e) { return e.verified; }
bool is_finite(const RetentionEntry& e) { return !e.non_finite; }

const std::map<std::string, std::function<bool(const Case&)>> kRules = {
    {"only what is ours and valid goes",
     [](const Case& c) { return c.none_gone([](const auto& e) { return !e.valid; }); }},
    {"a verified one stays",
     [](const Case& c) {
       return c.deleted.empty() ||
              c.count([&](const auto& e) { return e.valid && e.verified && !c.gone(e); }) > 0;
     }},
    {"the last N stay",
     [](const Case& c) { return c.none_gone([&](const auto& e) { return c.among_last(e); }); }},
    {"the best M stay",
     [](const Case& c) { return c.none_gone([&](const auto& e) { return c.among_best(e); }); }},
    {"every K-th stays",
     [](const Case& c) { return c.none_gone([&](const auto& e) { return c.is_kth(e); }); }},
    {"what is pinned stays",
     [](const Case& c) { return c.none_gone([](const auto& e) { return e.pinned; }); }},
    {"the resume source stays",
     [](const Case& c) { return c.none_gone([](const auto& e) { return e.in_use; }); }},
    {"the newest finite one stays",
     [](const Case& c) { return c.none_gone([&](const auto& e) { return c.newest(e, is_finite); }); }},
    {"nothing stays without a reason",
     [](const Case& c) {
       return c.count([](const auto& e) { return e.valid && e.verified; }) == 0 ||
              c.count([&](const auto& e) {
                return e.valid && !c.gone(e) && !c.among_last(e) && !c.among_best(e) && !c.is_kth(e) &&
                       !e.pinned && !e.in_use && !c.newest(e, is_finite) && !c.newest(e, is_verified);
              }) == 0;
     }},
    {"the oldest goes first",
     [](const Case& c) { return std::is_sorted(c.deleted.begin(), c.deleted.end()); }},
};

class Histories {
 public:
  explicit Histories(unsigned seed) : random_(seed) {}

  // One training's life: saves, damage, pins, restarts, and retention after it all as often as it comes.
  // Returns the rules broken, with the case; empty where all hold.
  std::map<std::string, Case> run(const Planner& planner) {
    std::map<std::string, Case> broken;
    RetentionPolicy policy{.keep_last = upto(4), .keep_every = static_cast<uint64_t>(upto(3) * 7)};
    if (upto(3) != 0) policy.keep_best = BestMetric{"m", upto(2) == 0, 1 + upto(3)};
    Entries entries;
    uint64_t step = 0;
    for (int act = 2 + upto(14); act > 0; --act) {
      switch (upto(8)) {
        case 0:
          if (!entries.empty()) any(entries).pinned ^= true;
          break;
        case 1:  // bit rot that sizes tell; another run's folder
          if (!entries.empty()) any(entries).valid = false;
          break;
        case 2: {  // a new writer knows of none that it is good, and reads one
          for (RetentionEntry& e : entries) e.verified = e.in_use = false;
          if (!entries.empty() && upto(2) != 0) any(entries).in_use = true;
          if (!entries.empty() && upto(2) != 0) any(entries).verified = true;
          if (upto(3) == 0) step /= 2;  // went back
          break;
        }
        default: {
          step += 1 + static_cast<uint64_t>(upto(20));
          std::erase_if(entries, [&](const auto& e) { return e.step == step; });
          entries.push_back({step, true, true, false, false, upto(6) == 0, metric()});
          std::shuffle(entries.begin(), entries.end(), random_);
        }
      }
      if (upto(3) != 0) continue;
      const Case one{entries, policy, planner(entries, policy)};
      for (const auto& [rule, holds] : kRules)
        if (!holds(one)) broken.emplace(rule, one);
      std::erase_if(entries, [&](const auto& e) { return one.gone(e); });
    }
    return broken;
  }

 private:
  int upto(int n) { return static_cast<int>(random_() % static_cast<unsigned>(n)); }
  RetentionEntry& any(Entries& entries) {
    return entries[static_cast<size_t>(upto(static_cast<int>(entries.size())))];
  }
  std::optional<double> metric() {
    switch (upto(8)) {
      case 0:
        return std::nullopt;
      case 1:
        return NAN;
      case 2:
        return upto(2) ? INFINITY : -INFINITY;
      default:
        return upto(6) / 2.0;
    }
  }

  std::mt19937 random_;
};

TEST(RetentionProperties, HoldInEveryHistory) {
  const char* wanted = std::getenv("BITCTL_HISTORIES");
  const long histories = wanted != nullptr ? std::atol(wanted) : 20000;
  ASSERT_GT(histories, 0);
  Histories lives(20261122);
  size_t deleted = 0;
  for (long i = 0; i < histories; ++i) {
    const auto broken = lives.run([&](const Entries& entries, const RetentionPolicy& policy) {
      const Steps steps = steps_to_delete(entries, policy);
      deleted += steps.size();
      return steps;
    });
    for (const auto& [rule, one] : broken) ADD_FAILURE() << "history " << i << ": " << rule;
    if (!broken.empty()) break;
  }
  EXPECT_GT(deleted, static_cast<size_t>(histories)) << "histories in which nothing goes prove nothing";
}

// Each twin decides as retention does, from entries in which one fact is lost: the rule of that fact must see
// it.
struct Twin {
  const char* rule;
  Planner planner;
};

template <typename Change>
Planner misled(Change change) {
  return [change](Entries entries, RetentionPolicy policy) {
    for (RetentionEntry& e : entries) change(e, policy);
    return steps_to_delete(entries, policy);
  };
}

const Twin kTwins[] = {
    {"only what is ours and valid goes", misled([](RetentionEntry& e, RetentionPolicy&) { e.valid = true; })},
    {"a verified one stays", misled([](RetentionEntry& e, RetentionPolicy&) { e.verified = true; })},
    {"the last N stay", misled([](RetentionEntry&, RetentionPolicy& p) { p.keep_last = 1; })},
    {"the best M stay", misled([](RetentionEntry& e, RetentionPolicy& p) {  // a NaN is the best
       if (e.metric && p.keep_best && std::isnan(*e.metric)) e.metric = p.keep_best->smallest ? -1e9 : 1e9;
     })},
    {"the best M stay", misled([](RetentionEntry& e, RetentionPolicy& p) {  // a tie to the older
       if (e.metric && p.keep_best)
         *e.metric += (p.keep_best->smallest ? 1e-9 : -1e-9) * static_cast<double>(e.step);
     })},
    {"the best M stay", misled([](RetentionEntry& e, RetentionPolicy&) { e.non_finite = false; })},
    {"the best M stay",
     [](const Entries& entries, RetentionPolicy p) {  // the worst
       if (p.keep_best) p.keep_best->smallest ^= true;
       return steps_to_delete(entries, p);
     }},
    {"every K-th stays", misled([](RetentionEntry&, RetentionPolicy& p) { p.keep_every = 0; })},
    {"what is pinned stays", misled([](RetentionEntry& e, RetentionPolicy&) { e.pinned = false; })},
    {"the resume source stays", misled([](RetentionEntry& e, RetentionPolicy&) { e.in_use = false; })},
    {"the newest finite one stays",
     misled([](RetentionEntry& e, RetentionPolicy&) { e.non_finite = false; })},
    {"nothing stays without a reason", [](const Entries&, const RetentionPolicy&) { return Steps{}; }},
    {"the oldest goes first",
     [](const Entries& entries, const RetentionPolicy& policy) {
       Steps steps = steps_to_delete(entries, policy);
       std::reverse(steps.begin(), steps.end());
       return steps;
     }},
};

TEST(RetentionProperties, EachRuleSeesItsBug) {
  std::set<std::string> proven;
  for (const Twin& twin : kTwins) {
    Histories lives(7);
    bool seen = false;
    for (int i = 0; i < 20000 && !seen; ++i) seen = lives.run(twin.planner).contains(twin.rule);
    EXPECT_TRUE(seen) << "twin " << &twin - kTwins << " passes: " << twin.rule;
    proven.insert(twin.rule);
  }
  for (const auto& [rule, holds] : kRules) EXPECT_TRUE(proven.contains(rule)) << "no control for: " << rule;
}

}  // namespace
}  // namespace bitctl
