// The arenas of one rank: generations of two slots, of which only the descriptors are kept here.
#pragma once

#include <map>
#include <optional>
#include <vector>

#include "checkpoint/arena.h"

namespace bitctl {

class RankArenas {
 public:
  struct Generation {
    ArenaLayout layout;
    std::vector<Fd> slots;
    bool ready = false;
    int request = 0;  // of the trainer; 0: made for a load
    bool for_load = false;
  };
  struct Pending {
    int request = 0;
    ArenaLayout layout;
    bool for_load = false;
  };

  // The rank's control page, which must outlive this.
  explicit RankArenas(bitctl_control& page) : page_(page) {}

  std::map<uint32_t, Generation>& generations() { return generations_; }
  Generation* find(uint32_t gen);
  bool contains(uint32_t gen) const { return generations_.contains(gen); }

  // The next one whose bank holds nothing that is in use, not the newest complete snapshot, and not `kept`.
  std::optional<uint32_t> free_generation(const std::optional<SlotView>& kept) const;
  // Those that lie where `gen` is to lie.
  std::vector<uint32_t> in_the_way_of(uint32_t gen) const;
  // Those before `gen` in which nothing is in use.
  std::vector<uint32_t> outgrown_by(uint32_t gen) const;
  Status make(uint32_t gen, Pending pending);
  void drop(uint32_t gen);  // its slots are FREE then

  // {gen, files} for whoever maps it, and the slots' descriptors.
  Json message(uint32_t gen) const;
  std::vector<int> slot_fds(uint32_t gen) const;

  std::optional<Pending> waiting;  // until a bank is free

 private:
  bool is_in_use(uint32_t bank) const;

  bitctl_control& page_;
  std::map<uint32_t, Generation> generations_;
  uint32_t last_gen_ = 0;
};

}  // namespace bitctl
