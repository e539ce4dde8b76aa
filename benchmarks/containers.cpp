// containers: the C++ standard library.
//
// Models ordinary C++: map, unordered_map, list, string, vector of vectors and
// shared_ptr, each filled, searched and emptied in turn, with operator new and
// sized delete. Arguments: rounds, threads.
//
// Punishes slow operator new and delete, nodes of different containers mixed
// in one OS page, and a slow grow-copy-free of vectors.
#include "bench.h"

#include <list>
#include <map>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

static uint64_t maps(random_state &random, int count) {
  std::map<uint64_t, std::string> ordered;
  std::unordered_map<std::string, uint64_t> hashed;
  for (int i = 0; i < count; i++) {
    uint64_t key = random_below(&random, count * 2);
    std::string text = "key number " + std::to_string(key) + std::string(key % 40, '.');
    hashed[text] += key;
    ordered[key] = std::move(text);
    if (i % 3 == 0) ordered.erase(random_below(&random, count * 2));
  }
  uint64_t sum = ordered.size();
  for (const auto &[key, text] : ordered) sum = mixed(sum, hashed[text] + key);
  return sum;
}

static uint64_t sequences(random_state &random, int count) {
  std::list<std::shared_ptr<std::vector<uint32_t>>> queue;
  uint64_t sum = 0;
  for (int i = 0; i < count; i++) {
    auto row = std::make_shared<std::vector<uint32_t>>();
    for (uint64_t n = random_below(&random, 60); n > 0; n--)
      row->push_back(static_cast<uint32_t>(n));
    queue.push_back(std::move(row));
    if (queue.size() > 500) {
      sum += queue.front()->size();
      queue.pop_front();
    }
  }
  return sum;
}

static void *work(void *argument) {
  auto *me = static_cast<worker *>(argument);
  random_state random = random_seed(me->index);
  for (long i = 0; i < me->iterations; i++) {
    me->sum = mixed(me->sum, maps(random, 8000));
    me->sum = mixed(me->sum, sequences(random, 12000));
  }
  return nullptr;
}

int main(int argc, char **argv) {
  long rounds = argument(argc, argv, 1, 160);
  int threads = static_cast<int>(argument(argc, argv, 2, 1));
  return finish(run_workers(threads, rounds, nullptr, work));
}
