// tiles: an image editor's tile cache.
//
// Models a picture in 64 x 64 tiles of 4 bytes a pixel (16 KiB each, plus one
// header), of which every filter pass makes a new version, while an undo list
// keeps the last four versions of each tile. The filter reads and writes every
// pixel of the tiles it changes. Arguments: passes, threads.
//
// Punishes wasted room beside 16 KiB + 64 bytes (a size class of 20 KiB costs
// a fifth more memory), conflicts in the processor's cache when every tile
// starts at the same offset of an OS page, and slow medium-size frees.
#include "bench.h"

#include <deque>
#include <memory>
#include <vector>

struct Tile {
  static constexpr int side = 64;
  uint64_t header[8];
  uint32_t pixels[side * side];
};

using Version = std::unique_ptr<Tile>;

static Version filtered(const Tile *old, uint32_t seed) {
  Version fresh(new Tile);
  fresh->header[0] = seed;
  for (int i = 0; i < Tile::side * Tile::side; i++)
    fresh->pixels[i] = (old ? old->pixels[i] : 0) * 5 + seed;
  return fresh;
}

static void *work(void *argument) {
  auto *me = static_cast<worker *>(argument);
  const int tileCount = 1024 / me->count, versions = 4;
  std::vector<std::deque<Version>> picture(tileCount);
  random_state random = random_seed(me->index);
  for (long pass = 0; pass < me->iterations * me->count; pass++) {
    for (auto &tile : picture) {
      if (random_below(&random, 4) == 0) continue;
      const Tile *old = tile.empty() ? nullptr : tile.back().get();
      tile.push_back(filtered(old, static_cast<uint32_t>(pass)));
      if (tile.size() > versions) tile.pop_front();
    }
  }
  for (auto &tile : picture)
    if (!tile.empty()) me->sum = mixed(me->sum, tile.back()->pixels[77]);
  return nullptr;
}

int main(int argc, char **argv) {
  long passes = argument(argc, argv, 1, 320);
  int threads = static_cast<int>(argument(argc, argv, 2, 1));
  return finish(run_workers(threads, passes, nullptr, work));
}
