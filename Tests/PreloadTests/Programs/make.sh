# make -j4: forty objects with dependencies, built, rebuilt after a change, cleaned.
for i in $(seq 1 40); do echo "int f$i(void) { return $i; }" > f$i.c; done
{ for i in $(seq 1 40); do echo "int f$i(void);"; done; echo '#include <stdio.h>'; echo 'int main(void) { int s = 0;'
  for i in $(seq 1 40); do echo "s += f$i();"; done; echo 'printf("%d\n", s); return 0; }'; } > main.c
cat > Makefile <<'MK'
sources := $(wildcard *.c)
objects := $(sources:.c=.o)
all: program
program: $(objects)
	@cc -o $@ $(sort $^)
%.o: %.c
	@cc -c -o $@ $<
MK
make -s -j4 && ./program && make -q && echo current
touch -d '-10 seconds' *
echo 'int f1(void) { return 1000; }' > f1.c
make -s -j4 && ./program
