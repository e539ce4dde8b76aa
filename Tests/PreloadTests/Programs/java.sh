# java: a program run from source, with threads and garbage.
mkdir -p src; cat > src/T.java <<'J'
import java.util.*;
import java.util.stream.*;
public class T {
  public static void main(String[] a) throws Exception {
    Map<String, List<Integer>> m = new TreeMap<>();
    for (int i = 0; i < 300000; i++) m.computeIfAbsent("k" + i % 997, k -> new ArrayList<>()).add(i);
    System.out.println(m.size() + " " + m.get("k5").size());
    System.out.println(IntStream.range(0, 2000000).parallel().mapToLong(i -> (long) i * i % 1009).sum());
    byte[][] junk = new byte[64][];
    for (int i = 0; i < 2000; i++) junk[i % 64] = new byte[100000];
    System.out.println(junk.length);
  }
}
J
if command -v javac > /dev/null; then javac -d . src/T.java && java -Xmx256m T; else echo "no javac"; java -version 2> /dev/null; fi
