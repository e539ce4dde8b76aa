# gcc and g++: compile, link and run a C and a template-heavy C++ program.
{
  echo '#include <stdio.h>'
  for i in $(seq 1 600); do echo "int f$i(int x) { int a[8]; for (int i = 0; i < 8; i++) a[i] = x * i + $i; return a[x & 7] ^ $i; }"; done
  echo 'int main(void) { unsigned s = 0;'
  for i in $(seq 1 600); do echo "s = s * 31 + f$i($i);"; done
  echo 'printf("%u\n", s); return 0; }'
} > big.c
gcc -O2 -g big.c -o big && ./big
cat > small.cc <<'CC'
#include <algorithm>
#include <iostream>
#include <map>
#include <regex>
#include <string>
#include <vector>
int main() {
  std::map<std::string, std::vector<int>> m;
  for (int i = 0; i < 100000; i++) m[std::to_string(i % 1000)].push_back(i);
  std::regex r("([0-9])\\1");
  std::cout << m.size() << ' ' << std::count_if(m.begin(), m.end(), [&](auto &p) { return std::regex_search(p.first, r); }) << '\n';
}
CC
g++ -O1 small.cc -o small && ./small
