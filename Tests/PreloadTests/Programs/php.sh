# php with every extension that is installed: xml, mbstring, curl, sqlite, intl and the
# rest are plugins that some builds open with RTLD_DEEPBIND.
php -r '
  foreach (get_loaded_extensions() as $name) { $all[] = $name; } sort($all); echo count($all), "\n";
  $d = new DOMDocument; $root = $d->appendChild($d->createElement("r"));
  for ($i = 0; $i < 5000; $i++) { $root->appendChild($d->createElement("e", "v$i"))->setAttribute("n", $i); }
  $x = new DOMXPath($d); echo $x->query("//e[@n mod 7 = 0]")->length, " ", strlen($d->saveXML()), "\n";
  echo mb_strtoupper("äöüß"), "\n";
  if (class_exists("Collator")) { $c = new Collator("de_DE"); $w = ["z", "ä", "a"]; $c->sort($w); echo join($w), "\n"; }
  if (class_exists("SQLite3")) { $b = new SQLite3(":memory:"); $b->exec("create table t(a)");
    for ($i = 0; $i < 2000; $i++) $b->exec("insert into t values ($i)"); echo $b->querySingle("select sum(a) from t"), "\n"; }
  if (function_exists("curl_init")) { $h = curl_init("http://127.0.0.1:1/"); curl_setopt($h, CURLOPT_RETURNTRANSFER, 1); var_dump(curl_exec($h)); curl_close($h); }
  $s = []; for ($i = 0; $i < 200000; $i++) { $s["k" . ($i * 7919 % 50021)][] = $i; } echo count($s), " ", strlen(json_encode($s)), " ", preg_match_all("/7+/", json_encode($s)), "\n";
'
